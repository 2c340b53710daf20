//! Deflate, written by us: what a layer's digest depends on must not change with a library's version.
//!
//! It gives a bit writer and an encoder of moderate strength (LZ77 with lazy matching, each block stored, fixed or
//! dynamic, whichever is smallest). The same bytes in give the same bits out on every machine, however they are cut
//! into writes. It does not know gzip, tar or zip.
//!
//! Source: RFC 1951.

mod huffman;
mod matches;

use matches::Finder;

/// The length of a block: what a stored block holds at most.
const BLOCK: usize = 65_535;
/// How far back a match may reach.
const WINDOW: usize = 32 << 10;

/// Bits into bytes, least significant first (RFC 1951 section 3.1.1).
#[derive(Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    count: u32,
}

impl BitWriter {
    /// Appends the low `bits` bits of `value`; at most 32.
    pub fn put(&mut self, value: u32, bits: u32) {
        debug_assert!(bits <= 32 && u64::from(value) >> bits == 0);
        self.pending |= u64::from(value) << self.count;
        self.count += bits;
        while self.count >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    /// An empty stored block: ends on a byte boundary and means nothing (RFC 1951 section 3.2.4).
    pub fn align(&mut self) {
        if self.count == 0 {
            return;
        }
        self.put(0, 3);
        self.pad();
        self.bytes.extend([0, 0, 0xff, 0xff]);
    }

    /// Ends the stream: an empty last block, and zero bits up to the byte boundary.
    pub fn end(&mut self) {
        // BFINAL, fixed codes, end-of-block.
        self.put(0b011, 3);
        self.put(0, 7);
        self.pad();
    }

    fn pad(&mut self) {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
    }

    /// `bytes` as stored blocks, none of them the last.
    pub fn stored(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(BLOCK) {
            self.put(0, 3);
            self.pad();
            let length = piece.len() as u16;
            self.bytes.extend(length.to_le_bytes());
            self.bytes.extend((!length).to_le_bytes());
            self.bytes.extend(piece);
        }
    }

    /// Whole bytes that are already deflate. The writer must be on a byte boundary.
    pub fn raw(&mut self, bytes: &[u8]) {
        debug_assert_eq!(self.count, 0);
        self.bytes.extend(bytes);
    }

    /// Whether the next bit starts a byte.
    pub fn is_aligned(&self) -> bool {
        self.count == 0
    }

    /// How many whole bytes wait to be taken.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The whole bytes written since the last call, exchanged for the (emptied) `fresh`. Bits of an unfinished byte stay.
    pub fn take(&mut self, mut fresh: Vec<u8>) -> Vec<u8> {
        fresh.clear();
        std::mem::replace(&mut self.bytes, fresh)
    }
}

/// Compresses bytes into non-final deflate blocks.
pub struct Encoder {
    finder: Finder,
    /// The window behind, then what waits to be encoded.
    buffer: Vec<u8>,
    /// Where in `buffer` the waiting part starts.
    start: usize,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    pub fn new() -> Self {
        Self {
            finder: Finder::new(),
            buffer: Vec::with_capacity(WINDOW + 2 * BLOCK),
            start: 0,
        }
    }

    /// Encodes as many whole blocks as there are; the rest waits.
    pub fn write(&mut self, mut bytes: &[u8], out: &mut BitWriter) {
        while !bytes.is_empty() {
            let room = BLOCK - (self.buffer.len() - self.start);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend(now);
            bytes = later;
            if self.buffer.len() - self.start == BLOCK {
                self.block(out);
            }
        }
    }

    /// Encodes what waits, and forgets what was before: the next bytes do not refer back to these.
    pub fn flush(&mut self, out: &mut BitWriter) {
        if self.buffer.len() > self.start {
            self.block(out);
        }
        self.finder.forget(self.buffer.len());
        self.buffer.clear();
        self.start = 0;
    }

    fn block(&mut self, out: &mut BitWriter) {
        let tokens = self.finder.tokens(&self.buffer, self.start);
        huffman::block(tokens, &self.buffer[self.start..], out);
        self.start = self.buffer.len();
        if self.start > WINDOW + BLOCK {
            let gone = self.start - WINDOW;
            self.buffer.drain(..gone);
            self.start = WINDOW;
            self.finder.slide(gone);
        }
    }
}

/// `bytes` as one complete deflate stream.
pub fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut out = BitWriter::default();
    let mut encoder = Encoder::new();
    encoder.write(bytes, &mut out);
    encoder.flush(&mut out);
    out.end();
    out.take(Vec::new())
}

/// `bytes` as a part of a stream: blocks that end on a byte boundary, none of them the last, and that refer to nothing before them.
pub fn part(bytes: &[u8]) -> Vec<u8> {
    let mut out = BitWriter::default();
    let mut encoder = Encoder::new();
    encoder.write(bytes, &mut out);
    encoder.flush(&mut out);
    out.align();
    out.take(Vec::new())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn inflate(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut decoder = flate2::read::DeflateDecoder::new(bytes);
        decoder.read_to_end(&mut out).unwrap();
        assert_eq!(decoder.total_in(), bytes.len() as u64);
        out
    }

    /// Bytes that look random and are not: xorshift.
    fn noise(length: usize, mut state: u32) -> Vec<u8> {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn round_trips() {
        let text = include_str!("deflate.rs").repeat(40);
        let mut mixed = noise(100_000, 7);
        mixed.extend(text.as_bytes());
        mixed.extend(vec![0; 300_000]);
        mixed.extend(noise(70_000, 9));
        for case in [&b""[..], b"a", b"aaa", &[0; 512], text.as_bytes(), &mixed] {
            assert_eq!(inflate(&compress(case)), case);
        }
        // Moderate, and not less: half of what is left is what a stronger encoder would still find.
        assert!(compress(text.as_bytes()).len() * 8 < text.len());
        assert!(compress(&[0; 512]).len() < 20);
        let noise = noise(200_000, 3);
        assert!(
            compress(&noise).len() < noise.len() + 40,
            "noise is stored, not blown up"
        );
    }

    #[test]
    fn the_cut_into_writes_does_not_matter() {
        let text = include_str!("deflate.rs").repeat(30);
        let whole = compress(text.as_bytes());
        let mut out = BitWriter::default();
        let mut encoder = Encoder::new();
        for piece in text.as_bytes().chunks(777) {
            encoder.write(piece, &mut out);
        }
        encoder.flush(&mut out);
        out.end();
        assert_eq!(out.take(Vec::new()), whole);
    }

    #[test]
    fn the_bits_are_what_they_were() {
        // Layers are known by digest: another output needs another `recipe::LAYOUT`.
        let mut bytes = noise(70_000, 1);
        bytes.extend(b"import os\nimport sys\n".repeat(5000));
        bytes.extend((0..90_000u32).map(|number| ((number.wrapping_mul(number) >> 7) & 15) as u8));
        let digest = crate::digest::Digest::of(&compress(&bytes));
        assert_eq!(digest.hex()[..16], *"0d1607b2a1f1bfa1");
    }

    #[test]
    fn a_flush_forgets() {
        let mut out = BitWriter::default();
        let mut encoder = Encoder::new();
        let text = noise(1000, 5);
        encoder.write(&text, &mut out);
        encoder.flush(&mut out);
        let first = out.take(Vec::new()).len();
        encoder.write(&text, &mut out);
        encoder.flush(&mut out);
        assert!(
            out.len() + 2 > first,
            "the second copy does not refer to the first"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_round_trip(pieces in prop::collection::vec((0u8..6, 1usize..4000), 0..40)) {
            let mut bytes = Vec::new();
            for (kind, length) in pieces {
                match kind {
                    0 => bytes.extend(noise(length, length as u32 + 1)),
                    1 => bytes.extend(vec![0u8; length * 3]),
                    2 => bytes.extend(b"from __future__ import annotations\n".iter().cycle().take(length)),
                    _ => {
                        let from = bytes.len().saturating_sub(length * 7);
                        let copy = bytes[from..(from + length).min(bytes.len())].to_vec();
                        bytes.extend(copy);
                    }
                }
            }
            prop_assert_eq!(inflate(&compress(&bytes)), bytes);
        }
    }
}
