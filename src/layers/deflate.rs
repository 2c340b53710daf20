//! A deflate encoder of our own: plain, deterministic, and bit-exact for ever.
//!
//! A layer's digest must not depend on a compressor library's version, so what is not copied from a wheel is encoded
//! here. It is no rival to zlib's better levels: greedy LZ77 over hash chains of bounded length, fixed Huffman codes
//! for small pieces, dynamic ones for large. **Changing anything that changes its output changes the layout version in
//! `recipe.rs`.**
//!
//! Source: RFC 1951.

/// Writes deflate blocks into a growing buffer; the position may stand anywhere inside a byte.
#[derive(Debug, Default)]
pub struct Deflater {
    out: Vec<u8>,
    /// Bits that do not make a byte yet, lowest first.
    bits: u64,
    count: u32,
}

/// The most input one block covers: bounds memory, and lets the codes follow the data.
const BLOCK: usize = 256 << 10;
/// Below this, a dynamic code's own description costs more than it saves.
const SMALL: usize = 1 << 10;
const WINDOW: usize = 32 << 10;
const SHORTEST: usize = 4;
const LONGEST: usize = 258;
/// Candidates looked at per position.
const CHAIN: usize = 24;
/// A match this long is taken at once.
const GOOD: usize = 64;
const HASH_BITS: u32 = 15;

impl Deflater {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whole bytes written so far, handed over.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// How many whole bytes are waiting to be taken.
    pub fn waiting(&self) -> usize {
        self.out.len()
    }

    /// Encodes `data` as blocks that are not final. Matches never reach back before `data`.
    pub fn encode(&mut self, data: &[u8]) {
        for block in data.chunks(BLOCK) {
            if block.len() <= SMALL {
                self.fixed(block);
            } else {
                self.large(block);
            }
        }
    }

    /// Reaches a byte boundary: an empty stored block, unless the position is one already.
    pub fn align(&mut self) {
        if self.count > 0 {
            self.put(0, 3);
            self.pad();
            self.out.extend_from_slice(&[0, 0, 0xff, 0xff]);
        }
    }

    /// Copies bytes of another deflate stream. The position must be a byte boundary.
    pub fn copy(&mut self, bytes: &[u8]) {
        debug_assert_eq!(self.count, 0);
        self.out.extend_from_slice(bytes);
    }

    /// Ends the stream: an empty final block with fixed codes, then zero bits up to the boundary.
    pub fn finish(&mut self) {
        self.put(0b011, 3);
        self.put(0, 7);
        self.pad();
    }

    fn put(&mut self, value: u32, length: u32) {
        self.bits |= u64::from(value) << self.count;
        self.count += length;
        while self.count >= 8 {
            self.out.push(self.bits as u8);
            self.bits >>= 8;
            self.count -= 8;
        }
    }

    fn pad(&mut self) {
        if self.count > 0 {
            self.out.push(self.bits as u8);
            self.bits = 0;
            self.count = 0;
        }
    }

    fn stored(&mut self, data: &[u8]) {
        for piece in data.chunks(0xffff) {
            self.put(0, 3);
            self.pad();
            let length = piece.len() as u16;
            self.out.extend_from_slice(&length.to_le_bytes());
            self.out.extend_from_slice(&(!length).to_le_bytes());
            self.out.extend_from_slice(piece);
        }
    }

    fn fixed(&mut self, data: &[u8]) {
        self.put(0b010, 3);
        let codes = fixed_codes();
        for token in tokens(data) {
            self.token(token, &codes.0, &codes.1);
        }
        self.code(&codes.0, 256);
    }

    /// A dynamic block, or a stored one where that is smaller.
    fn large(&mut self, data: &[u8]) {
        let tokens = tokens(data);
        let mut literals = [0u32; 286];
        let mut distances = [0u32; 30];
        literals[256] = 1;
        for &token in &tokens {
            match token {
                Token::Literal(byte) => literals[usize::from(byte)] += 1,
                Token::Match { length, distance } => {
                    literals[length_symbol(length).0] += 1;
                    distances[distance_symbol(distance).0] += 1;
                }
            }
        }
        let literal_lengths = code_lengths(&literals, 15);
        let distance_lengths = code_lengths(&distances, 15);
        let body: u64 = literals
            .iter()
            .zip(&literal_lengths)
            .map(|(n, l)| u64::from(*n) * u64::from(*l))
            .sum::<u64>()
            + distances
                .iter()
                .zip(&distance_lengths)
                .map(|(n, l)| u64::from(*n) * u64::from(*l))
                .sum::<u64>();
        // Extra bits and the header are small beside what separates text from random bytes.
        if body / 8 >= data.len() as u64 {
            return self.stored(data);
        }
        self.put(0b100, 3);
        self.describe(&literal_lengths, &distance_lengths);
        let (literal_codes, distance_codes) = (codes(&literal_lengths), codes(&distance_lengths));
        for token in tokens {
            self.token(token, &literal_codes, &distance_codes);
        }
        self.code(&literal_codes, 256);
    }

    fn code(&mut self, codes: &[(u16, u8)], symbol: usize) {
        let (code, length) = codes[symbol];
        self.put(u32::from(code), u32::from(length));
    }

    fn token(&mut self, token: Token, literals: &[(u16, u8)], distances: &[(u16, u8)]) {
        match token {
            Token::Literal(byte) => self.code(literals, usize::from(byte)),
            Token::Match { length, distance } => {
                let (symbol, extra, bits) = length_symbol(length);
                self.code(literals, symbol);
                self.put(extra, bits);
                let (symbol, extra, bits) = distance_symbol(distance);
                self.code(distances, symbol);
                self.put(extra, bits);
            }
        }
    }

    /// The code lengths of a dynamic block, themselves coded (RFC 1951 section 3.2.7).
    fn describe(&mut self, literals: &[u8], distances: &[u8]) {
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        let used = |lengths: &[u8], least: usize| {
            lengths
                .iter()
                .rposition(|length| *length > 0)
                .map_or(least, |last| (last + 1).max(least))
        };
        let (literal_count, distance_count) = (used(literals, 257), used(distances, 1));
        let all: Vec<u8> = literals[..literal_count]
            .iter()
            .chain(&distances[..distance_count])
            .copied()
            .collect();
        // (symbol, extra value, extra bits)
        let mut runs: Vec<(usize, u32, u32)> = Vec::new();
        let mut index = 0;
        while index < all.len() {
            let length = all[index];
            let run = all[index..].iter().take_while(|other| **other == length).count();
            let taken = match (length, run) {
                (0, 11..) => {
                    let taken = run.min(138);
                    runs.push((18, taken as u32 - 11, 7));
                    taken
                }
                (0, 3..) => {
                    runs.push((17, run as u32 - 3, 3));
                    run
                }
                (_, 4..) if length > 0 => {
                    let taken = (run - 1).min(6);
                    runs.push((usize::from(length), 0, 0));
                    runs.push((16, taken as u32 - 3, 2));
                    taken + 1
                }
                _ => {
                    runs.push((usize::from(length), 0, 0));
                    1
                }
            };
            index += taken;
        }
        let mut counts = [0u32; 19];
        for (symbol, _, _) in &runs {
            counts[*symbol] += 1;
        }
        let lengths = code_lengths(&counts, 7);
        let count = ORDER
            .iter()
            .rposition(|symbol| lengths[*symbol] > 0)
            .map_or(4, |last| (last + 1).max(4));
        self.put(literal_count as u32 - 257, 5);
        self.put(distance_count as u32 - 1, 5);
        self.put(count as u32 - 4, 4);
        for symbol in &ORDER[..count] {
            self.put(u32::from(lengths[*symbol]), 3);
        }
        let codes = codes(&lengths);
        for (symbol, extra, bits) in runs {
            self.code(&codes, symbol);
            self.put(extra, bits);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Token {
    Literal(u8),
    Match { length: usize, distance: usize },
}

/// Greedy LZ77: at each position the longest of the nearest candidates.
fn tokens(data: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(data.len() / 4);
    if data.len() <= SHORTEST {
        tokens.extend(data.iter().map(|byte| Token::Literal(*byte)));
        return tokens;
    }
    // Small inputs (tar headers, by the ten thousand) must not pay for a table made for large ones.
    let bits = if data.len() <= SMALL { 9 } else { HASH_BITS };
    let mut heads = vec![u32::MAX; 1 << bits];
    let mut previous = vec![u32::MAX; data.len()];
    let hash = |at: usize| {
        let word = u32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        (word.wrapping_mul(0x9e37_79b1) >> (32 - bits)) as usize
    };
    let last = data.len() - SHORTEST;
    let mut at = 0;
    while at < data.len() {
        let mut best = (0, 0);
        if at <= last {
            let slot = hash(at);
            let mut candidate = heads[slot];
            let longest = LONGEST.min(data.len() - at);
            for _ in 0..CHAIN {
                if candidate == u32::MAX || at - candidate as usize > WINDOW {
                    break;
                }
                let from = candidate as usize;
                // A candidate that is no better at the end of the best one cannot be better.
                if best.0 == 0 || (best.0 < longest && data[from + best.0] == data[at + best.0]) {
                    let length = common(&data[from..], &data[at..at + longest]);
                    if length > best.0 {
                        best = (length, at - from);
                        if length >= GOOD {
                            break;
                        }
                    }
                }
                candidate = previous[from];
            }
            previous[at] = heads[slot];
            heads[slot] = at as u32;
        }
        if best.0 < SHORTEST {
            tokens.push(Token::Literal(data[at]));
            at += 1;
            continue;
        }
        tokens.push(Token::Match {
            length: best.0,
            distance: best.1,
        });
        // Inside a long match, positions are not worth remembering one by one.
        let remember = if best.0 <= 32 { best.0 } else { 8 };
        for inside in at + 1..(at + remember).min(last + 1) {
            let slot = hash(inside);
            previous[inside] = heads[slot];
            heads[slot] = inside as u32;
        }
        at += best.0;
    }
    tokens
}

/// How many leading bytes two slices share; at most the second's length.
fn common(one: &[u8], other: &[u8]) -> usize {
    let mut length = 0;
    while length + 8 <= other.len() && length + 8 <= one.len() {
        let word = |slice: &[u8]| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&slice[length..length + 8]);
            u64::from_le_bytes(bytes)
        };
        let difference = word(one) ^ word(other);
        if difference != 0 {
            return length + (difference.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    while length < other.len() && one[length] == other[length] {
        length += 1;
    }
    length
}

/// (symbol, extra value, extra bits) of a match length (RFC 1951 section 3.2.5).
fn length_symbol(length: usize) -> (usize, u32, u32) {
    if length == LONGEST {
        return (285, 0, 0);
    }
    let offset = (length - 3) as u32;
    if offset < 8 {
        return (257 + offset as usize, 0, 0);
    }
    let bits = 31 - offset.leading_zeros() - 2;
    let symbol = 257 + 4 * bits as usize + (offset >> bits) as usize;
    (symbol, offset & ((1 << bits) - 1), bits)
}

/// (symbol, extra value, extra bits) of a match distance.
fn distance_symbol(distance: usize) -> (usize, u32, u32) {
    let offset = (distance - 1) as u32;
    if offset < 4 {
        return (offset as usize, 0, 0);
    }
    let bits = 31 - offset.leading_zeros() - 1;
    let symbol = 2 * bits as usize + (offset >> bits) as usize;
    (symbol, offset & ((1 << bits) - 1), bits)
}

/// Huffman code lengths of at most `limit` bits; a symbol that does not occur has none.
fn code_lengths(counts: &[u32], limit: u8) -> Vec<u8> {
    let mut lengths = vec![0u8; counts.len()];
    let mut used: Vec<(u32, usize)> = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(symbol, count)| (*count, symbol))
        .collect();
    used.sort_unstable();
    match used.as_slice() {
        [] => return lengths,
        // A code of one symbol still takes one bit; decoders accept the incomplete code for distances only, and a
        // literal code always has the end-of-block symbol beside another.
        [(_, symbol)] => {
            lengths[*symbol] = 1;
            return lengths;
        }
        _ => {}
    }
    // Two queues: leaves in order of count, and inner nodes, which are made in order of weight.
    let leaves = used.len();
    let mut weights: Vec<u64> = used.iter().map(|(count, _)| u64::from(*count)).collect();
    let mut parents = vec![0usize; 2 * leaves - 1];
    let (mut leaf, mut inner) = (0, leaves);
    for made in leaves..2 * leaves - 1 {
        let mut take = || {
            let from_leaves = leaf < leaves && (inner >= made || weights[leaf] <= weights[inner]);
            let index = if from_leaves { &mut leaf } else { &mut inner };
            *index += 1;
            *index - 1
        };
        let (one, other) = (take(), take());
        weights.push(weights[one] + weights[other]);
        parents[one] = made;
        parents[other] = made;
    }
    let mut depths = vec![0u32; 2 * leaves - 1];
    for node in (0..2 * leaves - 2).rev() {
        depths[node] = depths[parents[node]] + 1;
    }
    // How many codes of each length, cut to the limit, then repaired until Kraft's sum is one again.
    let mut of_length = vec![0u32; usize::from(limit) + 1];
    for depth in &depths[..leaves] {
        of_length[(*depth).min(u32::from(limit)) as usize] += 1;
    }
    let full = 1u64 << limit;
    let mut sum: u64 = (1..=usize::from(limit))
        .map(|l| u64::from(of_length[l]) << (usize::from(limit) - l))
        .sum();
    while sum > full {
        // One code of the longest length goes; one of the next shorter kind becomes two that are longer.
        of_length[usize::from(limit)] -= 1;
        for length in (1..usize::from(limit)).rev() {
            if of_length[length] > 0 {
                of_length[length] -= 1;
                of_length[length + 1] += 2;
                break;
            }
        }
        sum -= 1;
    }
    let mut symbols = used.iter().map(|(_, symbol)| *symbol);
    for length in (1..=limit).rev() {
        for symbol in symbols.by_ref().take(of_length[usize::from(length)] as usize) {
            lengths[symbol] = length;
        }
    }
    lengths
}

/// Canonical codes, bit-reversed for writing lowest bit first: (code, length) per symbol.
fn codes(lengths: &[u8]) -> Vec<(u16, u8)> {
    let mut of_length = [0u16; 16];
    for length in lengths.iter().filter(|length| **length > 0) {
        of_length[usize::from(*length)] += 1;
    }
    let mut next = [0u16; 16];
    let mut code = 0u16;
    for length in 1..16 {
        code = (code + of_length[length - 1]) << 1;
        next[length] = code;
    }
    lengths
        .iter()
        .map(|length| {
            if *length == 0 {
                return (0, 0);
            }
            let code = next[usize::from(*length)];
            next[usize::from(*length)] += 1;
            (code.reverse_bits() >> (16 - length), *length)
        })
        .collect()
}

/// The fixed codes (RFC 1951 section 3.2.6), made once.
fn fixed_codes() -> &'static (Vec<(u16, u8)>, Vec<(u16, u8)>) {
    static CODES: std::sync::OnceLock<(Vec<(u16, u8)>, Vec<(u16, u8)>)> = std::sync::OnceLock::new();
    CODES.get_or_init(|| {
        let mut lengths = [8u8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        (codes(&lengths), codes(&[5; 30]))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn check(data: &[u8]) -> usize {
        let mut deflater = Deflater::new();
        // Twice, with a boundary between: blocks must not depend on where in a byte they start.
        deflater.encode(data);
        deflater.align();
        deflater.encode(data);
        deflater.finish();
        let bytes = deflater.take();
        let mut decoded = Vec::new();
        flate2::read::DeflateDecoder::new(bytes.as_slice())
            .read_to_end(&mut decoded)
            .unwrap();
        assert_eq!(decoded.len(), 2 * data.len());
        assert!(decoded[..data.len()] == *data && decoded[data.len()..] == *data);
        bytes.len()
    }

    /// A generator of bytes that look like nothing.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 24) as u8
            })
            .collect()
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for length in [0, 1, 3, 4, 5, 257, 258, 259, 512, 1024, 1025, 70_000, 300_000] {
            check(&vec![0; length]);
            check(&noise(length));
            let text: Vec<u8> = b"def predict(model, X): return model.predict_proba(X)[:, 1]\n"
                .iter()
                .copied()
                .cycle()
                .enumerate()
                .map(|(index, byte)| if index % 97 == 0 { (index / 97) as u8 } else { byte })
                .take(length)
                .collect();
            check(&text);
        }
    }

    #[test]
    fn text_shrinks_and_noise_does_not_grow() {
        let headers: Vec<u8> = (0..512)
            .map(|index| if index < 60 { b'a' + index as u8 % 26 } else { 0 })
            .collect();
        assert!(check(&headers) < 200, "{}", check(&headers));
        let random = noise(300_000);
        assert!(check(&random) < 2 * random.len() + 200);
    }

    /// The output is part of every layer's digest: if this fails, `recipe.rs` needs a new layout version.
    #[test]
    fn the_output_is_pinned() {
        let mut data = Vec::new();
        for index in 0..40_000u32 {
            data.extend_from_slice(format!("{} ", index.wrapping_mul(2_654_435_761) % 5003).as_bytes());
        }
        let mut deflater = Deflater::new();
        deflater.encode(&data);
        deflater.encode(&noise(900));
        deflater.finish();
        let digest = crate::digest::Digest::of(&deflater.take());
        assert_eq!(digest.hex()[..16], *"3b2158b271c78fc6");
    }

    #[test]
    fn skewed_counts_stay_within_the_limit() {
        // Fibonacci weights make the deepest trees.
        let mut counts = vec![1u32, 1];
        while counts.len() < 40 {
            counts.push(counts[counts.len() - 1] + counts[counts.len() - 2]);
        }
        for limit in [7u8, 15] {
            let counts = &counts[..if limit == 7 { 19 } else { 40 }];
            let lengths = code_lengths(counts, limit);
            let sum: f64 = lengths.iter().map(|length| 0.5f64.powi(i32::from(*length))).sum();
            assert!(
                lengths.iter().all(|length| *length <= limit) && (sum - 1.0).abs() < 1e-12,
                "{sum}"
            );
        }
    }
}
