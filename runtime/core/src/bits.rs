//! Bits in bytes, most significant first.

/// Appends bits to reused memory.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits of the last byte in use, 0 to 7; 0: the last byte is full.
    used: u32,
}

impl BitWriter {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.used = 0;
    }

    /// What was written, padded with zero bits.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends the low `count` bits of `value`.
    pub(crate) fn push(&mut self, value: u64, count: u32) {
        for shift in (0..count).rev() {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut()
                && value >> shift & 1 == 1
            {
                *last |= 0x80 >> self.used;
            }
            self.used = (self.used + 1) % 8;
        }
    }

    pub(crate) fn ones(&mut self, count: u64) {
        for _ in 0..count {
            self.push(1, 1);
        }
    }
}

/// Takes bits from the front.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes, at: 0 }
    }

    /// The next `count` bits; `None` past the end.
    pub(crate) fn read(&mut self, count: u32) -> Option<u64> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u64::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    /// Whether what is left is less than a byte of zeros.
    pub(crate) fn only_padding_left(&mut self) -> bool {
        let left = self.bytes.len() * 8 - self.at;
        left < 8 && self.read(u32::try_from(left).unwrap_or(u32::MAX)) == Some(0)
    }
}
