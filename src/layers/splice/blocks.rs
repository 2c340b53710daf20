//! Inflating block by block: zlib's `Z_BLOCK`, which stops where a deflate block ends and says at which bit.
//!
//! This is the one place that talks to zlib-rs through its C interface: the safe one does not report block boundaries.

use libz_rs_sys::{
    Z_BLOCK, Z_BUF_ERROR, Z_OK, Z_STREAM_END, inflate, inflateEnd, inflateInit2_, inflateReset, z_stream,
    zlibVersion,
};

use crate::python::wheel::BAD_STREAM;

/// A raw inflater that stops at block boundaries.
pub struct Blocks {
    // On the heap: the library's state may point back at it.
    stream: Box<z_stream>,
}

// SAFETY: the stream's pointers are the library's own allocation, which no other thread knows, and input and output
// pointers that are only set during `step`.
unsafe impl Send for Blocks {}

/// What one step did.
pub struct Step {
    /// Bytes of the input that were used.
    pub taken: usize,
    pub boundary: Option<Boundary>,
}

/// The end of a block.
pub struct Boundary {
    /// How many bits at the end of the last byte that was taken belong to what follows.
    pub unused_bits: u32,
    /// Whether it was the stream's last block.
    pub last: bool,
}

// zlib.h, at `inflate`, on `data_type` after `Z_BLOCK`.
const AT_BOUNDARY: i32 = 128;
const LAST_BLOCK: i32 = 64;
const UNUSED_BITS: i32 = 63;

impl Blocks {
    pub fn new() -> Self {
        let mut stream = Box::new(z_stream::default());
        // SAFETY: the stream is valid and stays where it is; negative window bits mean raw deflate.
        let code = unsafe {
            inflateInit2_(
                &raw mut *stream,
                -15,
                zlibVersion(),
                i32::try_from(size_of::<z_stream>()).unwrap_or(0),
            )
        };
        // It fails for a wrong version or structure size, which are this build's own, or without memory.
        assert_eq!(code, Z_OK, "the inflater cannot be made");
        Self { stream }
    }

    /// Forgets everything: the next byte is the first of a new stream.
    pub fn reset(&mut self) {
        // SAFETY: the stream was initialised by `new`.
        let code = unsafe { inflateReset(&raw mut *self.stream) };
        assert_eq!(code, Z_OK, "an initialised inflater can be reset");
    }

    /// Inflates from `input` to the end of `output`, whose length stays at most `limit`: until a block ends, the input is
    /// used up, or `limit` is reached. The error is a sentence for people.
    pub fn step(&mut self, input: &[u8], output: &mut Vec<u8>, limit: usize) -> Result<Step, &'static str> {
        output.reserve(limit.saturating_sub(output.len()));
        let filled = output.len();
        let room = limit.saturating_sub(filled);
        let stream = &mut *self.stream;
        stream.next_in = input.as_ptr().cast_mut();
        stream.avail_in =
            u32::try_from(input.len()).map_err(|_| "it is read in pieces that are too large")?;
        stream.avail_out = u32::try_from(room).map_err(|_| "it is read in pieces that are too large")?;
        // SAFETY: `filled` is within the vector's allocation.
        stream.next_out = unsafe { output.as_mut_ptr().add(filled) };
        // SAFETY: `next_in` is valid for reads of `avail_in` bytes (the library does not write there), and `next_out` for
        // writes of `avail_out` bytes: `reserve` made room for `limit - filled`.
        let code = unsafe { inflate(&raw mut *stream, Z_BLOCK) };
        let made = room - stream.avail_out as usize;
        // SAFETY: the library has written the first `made` bytes.
        unsafe { output.set_len(filled + made) };
        let taken = input.len() - stream.avail_in as usize;
        stream.next_in = std::ptr::null_mut();
        stream.next_out = std::ptr::null_mut();
        match code {
            // Z_BUF_ERROR: no progress was possible, which the caller sees.
            Z_OK | Z_BUF_ERROR => {}
            // The end is taken at the last block's boundary, before this could come.
            Z_STREAM_END => return Err("bytes stand behind the end of its deflate stream"),
            _ => return Err(BAD_STREAM),
        }
        let state = stream.data_type;
        // A call leaves the boundary that the one before stopped at, so this one is new, even if all that was used came
        // from bits that the library had taken earlier.
        let boundary = (state & AT_BOUNDARY != 0).then_some(Boundary {
            unused_bits: (state & UNUSED_BITS) as u32,
            last: state & LAST_BLOCK != 0,
        });
        Ok(Step { taken, boundary })
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        // SAFETY: the stream was initialised by `new` and is not used again.
        unsafe { inflateEnd(&raw mut *self.stream) };
    }
}
