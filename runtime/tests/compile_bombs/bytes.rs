//! Byte sequences that are described instead of stored: the test must not use more memory than the tested process.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// Pieces, each with its number of repetitions.
#[derive(Default)]
pub(crate) struct Bytes(Vec<(Vec<u8>, usize)>);

impl Bytes {
    /// Adds a piece.
    pub(crate) fn then(self, piece: impl AsRef<[u8]>) -> Bytes {
        self.repeat(1, piece)
    }

    /// Adds a piece, repeated.
    pub(crate) fn repeat(mut self, times: usize, piece: impl AsRef<[u8]>) -> Bytes {
        self.0.push((piece.as_ref().to_vec(), times));
        self
    }

    /// Adds a number, in LEB128.
    pub(crate) fn number(self, number: usize) -> Bytes {
        self.then(leb128(number))
    }

    /// Adds other bytes, preceded by their length.
    pub(crate) fn sized(self, bytes: Bytes) -> Bytes {
        let mut sized = self.number(bytes.len());
        sized.0.extend(bytes.0);
        sized
    }

    fn len(&self) -> usize {
        self.0.iter().map(|(piece, times)| piece.len() * times).sum()
    }

    /// All bytes as one piece.
    pub(crate) fn flat(&self) -> Vec<u8> {
        self.0.iter().flat_map(|(piece, times)| piece.repeat(*times)).collect()
    }

    /// Wraps a core module in a component that exports a handler.
    pub(crate) fn in_a_component(self) -> Bytes {
        let handler = wat::parse_str(
            r#"(component (component $c) (instance $i (instantiate $c))
                (export "keylane:handler/handler@0.1.0" (instance $i)))"#,
        );
        let handler = handler.unwrap();
        let (preamble, sections) = handler.split_at(8);
        let core_module = [1];
        Bytes::default().then(preamble).then(core_module).sized(self).then(sections)
    }

    pub(crate) fn write(&self, file: &Path) {
        let mut out = BufWriter::new(File::create(file).unwrap());
        for (piece, times) in &self.0 {
            for _ in 0..*times {
                out.write_all(piece).unwrap();
            }
        }
        out.flush().unwrap();
    }
}

/// An unsigned number in LEB128.
pub(crate) fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
