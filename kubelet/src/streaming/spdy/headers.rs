//! Header blocks: names and values, compressed by one zlib stream for all blocks of a direction, with SPDY/3's dictionary.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::io;

/// Appendix of the SPDY/3 specification ("compression"); its Adler-32 is e3c6a7c2.
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
/// A block larger than this is an attack.
const BLOCK_BYTES_MAX: usize = 64 << 10;

/// Names, in lower case, with their values.
pub type Headers = Vec<(String, String)>;

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY header block: {why}"))
}

/// Reads the peer's blocks, in order.
pub struct Decoder(Decompress);

impl Default for Decoder {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Decoder {
    /// Reads one block.
    ///
    /// # Errors
    /// It is malformed or too large; the connection cannot go on.
    pub fn read(&mut self, block: &[u8]) -> io::Result<Headers> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::with_capacity(1024);
        loop {
            if plain.len() == plain.capacity() {
                plain.reserve(plain.len());
            }
            let (read, written) = (self.0.total_in(), plain.len());
            let status = self.0.decompress_vec(block, &mut plain, FlushDecompress::Sync);
            let read = usize::try_from(self.0.total_in() - read).map_err(|_| bad("too large"))?;
            block = block.get(read..).ok_or_else(|| bad("inflate"))?;
            match status {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(|_| bad("another dictionary"))?;
                    continue;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(bad("inflate")),
                Ok(_) => {}
            }
            if plain.len() > BLOCK_BYTES_MAX {
                return Err(bad("too large"));
            }
            // A full buffer may mean that more is held back.
            if block.is_empty() && plain.len() < plain.capacity() {
                return Ok(plain);
            }
            if read == 0 && plain.len() == written && plain.len() < plain.capacity() {
                return Err(bad("inflate"));
            }
        }
    }
}

fn parse(mut plain: &[u8]) -> io::Result<Headers> {
    let mut headers = Headers::new();
    for _ in 0..number(&mut plain)? {
        let name = text(&mut plain)?.to_ascii_lowercase();
        let value = text(&mut plain)?;
        // Several values of one name are held apart by NUL.
        headers.extend(value.split('\0').map(|value| (name.clone(), value.to_owned())));
    }
    Ok(headers)
}

fn number(plain: &mut &[u8]) -> io::Result<u32> {
    let (first, rest) = plain.split_first_chunk::<4>().ok_or_else(|| bad("cut short"))?;
    *plain = rest;
    Ok(u32::from_be_bytes(*first))
}

fn text(plain: &mut &[u8]) -> io::Result<String> {
    let length = number(plain)? as usize;
    let (text, rest) = plain.split_at_checked(length).ok_or_else(|| bad("cut short"))?;
    *plain = rest;
    String::from_utf8(text.to_vec()).map_err(|_| bad("no UTF-8"))
}

/// Writes our blocks, in order.
pub struct Encoder(Compress);

impl Encoder {
    /// At the start of a connection.
    ///
    /// # Errors
    /// zlib refuses the dictionary, which it never does.
    pub fn new() -> io::Result<Self> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(DICTIONARY).map_err(io::Error::other)?;
        Ok(Self(compress))
    }

    /// Writes one block.
    ///
    /// # Errors
    /// zlib fails.
    pub fn write(&mut self, headers: &[(String, String)]) -> io::Result<Vec<u8>> {
        let mut plain = length(headers.len()).to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend(length(text.len()));
            plain.extend(text.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() + 64);
        let mut rest = plain.as_slice();
        loop {
            let before = self.0.total_in();
            self.0.compress_vec(rest, &mut block, FlushCompress::Sync).map_err(io::Error::other)?;
            rest = rest.get(usize::try_from(self.0.total_in() - before).unwrap_or(0)..).unwrap_or_default();
            if rest.is_empty() && block.len() < block.capacity() {
                return Ok(block);
            }
            block.reserve(256);
        }
    }
}

/// Our own blocks are far below 4 GiB.
fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Made with another zlib, in one connection.
    const GOLDEN: [&str; 2] = [
        "78bbe3c6a7c202a62346703a2b294a4dcc851625aca9a08006000000ffff",
        "02651c0c29eee2126076612829cf0467759680fc22501a67b23000000000ffff",
    ];

    #[test]
    fn blocks_of_another_implementation_are_read() {
        let mut decoder = Decoder::default();
        let read = GOLDEN.map(|block| {
            let digits = (0..block.len()).step_by(2);
            let block: Vec<u8> =
                digits.map(|at| u8::from_str_radix(&block[at..at + 2], 16).unwrap()).collect();
            decoder.read(&block).unwrap()
        });
        assert_eq!(read[0], headers(&[("streamtype", "error")]));
        assert_eq!(read[1], headers(&[("streamtype", "stdin"), ("streamtype", "twice"), ("port", "80")]));
    }

    #[test]
    fn blocks_of_a_connection_are_read_in_order() {
        let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::default());
        let long = "x".repeat(9000);
        let blocks = [
            headers(&[("streamtype", "error")]),
            headers(&[("streamtype", "data"), ("port", "8080"), ("requestid", "0")]),
            headers(&[]),
            headers(&[("long", &long)]),
        ];
        for block in &blocks {
            let written = encoder.write(block).unwrap();
            assert_eq!(&decoder.read(&written).unwrap(), block);
        }
        assert!(encoder.write(&headers(&[])).unwrap().len() < 16, "the dictionary is sent once");
    }

    #[test]
    fn malformed_blocks_are_refused() {
        let whole = Encoder::new().unwrap().write(&headers(&[("a", "b")])).unwrap();
        for block in [&b"no zlib at all"[..], &[0x78, 0xbb, 1, 2, 3, 4], &whole[..whole.len() - 6]] {
            assert!(Decoder::default().read(block).is_err());
        }
        let bomb = Encoder::new().unwrap().write(&headers(&[("a", &"b".repeat(1 << 20))])).unwrap();
        assert!(bomb.len() < BLOCK_BYTES_MAX, "small outside: {}", bomb.len());
        assert!(Decoder::default().read(&bomb).is_err());
        // A count that the block does not hold, and lengths beyond its end.
        for plain in [&[0, 0, 0, 2][..], &[0, 0, 0, 1, 255, 255, 255, 255, 1]] {
            assert!(parse(plain).is_err());
        }
    }
}
