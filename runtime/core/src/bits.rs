//! A writer and a reader of single bits, most significant first.

/// A writer of bits that reuses its memory.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    /// The bits that are not in `bytes` yet, at the low end.
    pending: u64,
    /// The number of pending bits, 0 to 7.
    count: u32,
}

impl BitWriter {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.pending = 0;
        self.count = 0;
    }

    /// Returns the written bits, padded with zero bits to whole bytes. Nothing may be pushed after that.
    pub(crate) fn finish(&mut self) -> &[u8] {
        if self.count > 0 {
            self.push(0, 8 - self.count);
        }
        &self.bytes
    }

    /// Appends the low `count` bits of `value`, at most 56. All higher bits must be zero.
    pub(crate) fn push(&mut self, value: u64, count: u32) {
        debug_assert!(count <= 56 && value >> count == 0, "{value} has more than {count} bits");
        self.pending = self.pending << count | value;
        self.count += count;
        while self.count >= 8 {
            self.count -= 8;
            self.bytes.push((self.pending >> self.count & 0xff) as u8);
        }
        self.pending &= (1 << self.count) - 1;
    }

    /// Appends one-bits, at most 56.
    pub(crate) fn ones(&mut self, count: u32) {
        self.push((1 << count) - 1, count);
    }
}

/// A reader of bits, from the front.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes, at: 0 }
    }

    /// Reads the next `count` bits; `None` past the end.
    pub(crate) fn read(&mut self, count: u32) -> Option<u64> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u64::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    /// Returns whether less than a byte is left, and all of it is zero bits.
    pub(crate) fn only_padding_left(&mut self) -> bool {
        let left = self.bytes.len() * 8 - self.at;
        left < 8 && self.read(u32::try_from(left).unwrap_or(u32::MAX)) == Some(0)
    }
}
