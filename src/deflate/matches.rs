//! Finds repeated strings: hash chains over the last 32 KiB, one step of laziness.

use super::WINDOW;

const SHORTEST: usize = 4;
const LONGEST: usize = 258;
/// How many earlier places are tried for one match.
const TRIES: u32 = 12;
/// A match this long is taken without looking whether the next position has a longer one.
const GOOD: usize = 32;

const HASH_BITS: u32 = 15;

/// A literal byte, or a match: its length above bit 16, its distance below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(u32);

/// A token's two shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Literal(u8),
    /// Length 3..=258, distance 1..=32768.
    Match(u16, u16),
}

impl Token {
    fn literal(byte: u8) -> Self {
        Self(u32::from(byte))
    }

    fn matched(length: usize, distance: usize) -> Self {
        Self((length as u32) << 16 | (distance as u32 & 0xffff))
    }

    #[inline]
    pub fn kind(self) -> Kind {
        match self.0 >> 16 {
            0 => Kind::Literal(self.0 as u8),
            length => Kind::Match(length as u16, self.0 as u16),
        }
    }
}

/// Where each hash was last seen. Positions count all bytes ever seen, from 1, so that forgetting is moving a floor and
/// not clearing tables.
pub struct Finder {
    head: Vec<u32>,
    previous: Vec<u32>,
    tokens: Vec<Token>,
    /// The position of the buffer's first byte.
    base: u32,
    /// Positions before this one are not referred to.
    floor: u32,
}

impl Finder {
    pub fn new() -> Self {
        Self {
            head: vec![0; 1 << HASH_BITS],
            previous: vec![0; WINDOW],
            tokens: Vec::new(),
            base: 1,
            floor: 1,
        }
    }

    /// The buffer of `length` bytes is over; the next one is not to refer to it.
    pub fn forget(&mut self, length: usize) {
        self.slide(length);
        self.floor = self.base;
    }

    /// The buffer's first `count` bytes are gone.
    pub fn slide(&mut self, count: usize) {
        self.base += count as u32;
        if self.base > u32::MAX / 2 {
            // Positions are about to run out: start over. It happens at the same byte on every machine.
            self.head.fill(0);
            self.previous.fill(0);
            self.base = 1 + WINDOW as u32;
            self.floor = self.base;
        }
    }

    /// The tokens of `buffer[start..]`; matches may reach back before `start`.
    pub fn tokens(&mut self, buffer: &[u8], start: usize) -> &[Token] {
        self.tokens.clear();
        let mut at = start;
        let mut misses = 0usize;
        let mut held: Option<(usize, usize)> = None;
        while at < buffer.len() {
            let (length, distance) = match held.take() {
                Some(found) => found,
                None => self.longest(buffer, at, SHORTEST - 1),
            };
            if length < SHORTEST {
                self.tokens.push(Token::literal(buffer[at]));
                at += 1;
                misses += 1;
                // What does not compress is not searched byte by byte.
                let skip = (misses >> 7).min(32).min(buffer.len() - at);
                for byte in &buffer[at..at + skip] {
                    self.tokens.push(Token::literal(*byte));
                }
                at += skip;
                continue;
            }
            misses = 0;
            if length < GOOD && at + 1 < buffer.len() {
                let next = self.longest(buffer, at + 1, length);
                if next.0 > length {
                    self.tokens.push(Token::literal(buffer[at]));
                    at += 1;
                    held = Some(next);
                    continue;
                }
                self.insert_range(buffer, at + 2, at + length);
            } else {
                self.insert_range(buffer, at + 1, at + length);
            }
            self.tokens.push(Token::matched(length, distance));
            at += length;
        }
        &self.tokens
    }

    fn insert_range(&mut self, buffer: &[u8], from: usize, to: usize) {
        // A long run needs only its end in the chains.
        let from = from.max(to.saturating_sub(GOOD));
        for at in from..to {
            if at + SHORTEST <= buffer.len() {
                self.insert(buffer, at);
            }
        }
    }

    #[inline]
    fn insert(&mut self, buffer: &[u8], at: usize) -> u32 {
        let hash = hash(buffer, at);
        let position = self.base + at as u32;
        let before = std::mem::replace(&mut self.head[hash], position);
        self.previous[position as usize % WINDOW] = before;
        before
    }

    /// The longest match at `at` that is longer than `than`, and its distance; `(0, 0)` if there is none. Enters `at`
    /// into the chains.
    #[inline]
    fn longest(&mut self, buffer: &[u8], at: usize, than: usize) -> (usize, usize) {
        if at + SHORTEST > buffer.len() {
            return (0, 0);
        }
        let mut candidate = self.insert(buffer, at);
        let position = self.base + at as u32;
        let oldest = self
            .floor
            .max(position.saturating_sub(WINDOW as u32))
            .max(self.base);
        let limit = LONGEST.min(buffer.len() - at);
        let (mut best, mut distance) = (than, 0);
        let mut tries = TRIES;
        while candidate >= oldest && candidate < position && tries > 0 && best < limit {
            let from = (candidate - self.base) as usize;
            // The byte that would make it longer decides first.
            if buffer[from + best] == buffer[at + best] {
                let length = common(&buffer[from..], &buffer[at..at + limit]);
                if length > best {
                    best = length;
                    distance = at - from;
                }
            }
            candidate = self.previous[candidate as usize % WINDOW];
            tries -= 1;
        }
        if distance == 0 { (0, 0) } else { (best, distance) }
    }
}

#[inline]
fn hash(buffer: &[u8], at: usize) -> usize {
    let four = [buffer[at], buffer[at + 1], buffer[at + 2], buffer[at + 3]];
    (u32::from_le_bytes(four).wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)) as usize
}

/// How many bytes `one` and `other` share at the front; at most `other`'s length.
#[inline]
fn common(one: &[u8], other: &[u8]) -> usize {
    let mut length = 0;
    for (left, right) in one.chunks_exact(8).zip(other.chunks_exact(8)) {
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        let difference = word(left) ^ word(right);
        if difference != 0 {
            return length + (difference.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    let rest = one[length..].iter().zip(&other[length..]);
    length + rest.take_while(|(left, right)| left == right).count()
}
