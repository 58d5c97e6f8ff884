//! What several targets share: bytes with right checksums, so that a fuzzer gets behind them, and a disk in memory.

pub mod disk;

/// Takes up to `most` bytes, as many as the next byte says.
pub fn piece<'a>(data: &mut &'a [u8], most: usize) -> &'a [u8] {
    let Some((length, rest)) = data.split_first() else { return &[] };
    let (piece, rest) = rest.split_at(usize::from(*length).min(most).min(rest.len()));
    *data = rest;
    piece
}

/// The next byte; 0 at the end.
pub fn byte(data: &mut &[u8]) -> u8 {
    let Some((first, rest)) = data.split_first() else { return 0 };
    *data = rest;
    *first
}

/// A number from the next eight bytes, mostly small.
pub fn number(data: &mut &[u8]) -> u64 {
    match byte(data) {
        255 => {
            let mut bytes = [0; 8];
            bytes.iter_mut().for_each(|place| *place = byte(data));
            u64::from_le_bytes(bytes)
        }
        small => u64::from(small),
    }
}
