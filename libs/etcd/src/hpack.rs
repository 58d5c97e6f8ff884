//! HPACK as far as the framing of header fields and texts of printable ASCII go, for those who look at single fields without
//! keeping a table of past ones.

use std::ops::Range;

/// A field whose value stands in its block in full.
#[derive(Debug, PartialEq, Eq)]
pub struct Literal<'a> {
    /// Its name's number in the tables; 0 when that stands there in full as well.
    pub name: usize,
    /// Its value.
    pub value: Text<'a>,
    /// Where in the block the value stands, its length included.
    pub at: Range<usize>,
}

/// A text as it stands in a block.
#[derive(Debug, PartialEq, Eq)]
pub struct Text<'a> {
    huffman: bool,
    bytes: &'a [u8],
}

impl Text<'_> {
    /// The text; `None` where it is packed and not of printable ASCII.
    #[must_use]
    pub fn unpacked(&self) -> Option<Vec<u8>> {
        if self.huffman { unpack(self.bytes) } else { Some(self.bytes.to_vec()) }
    }
}

/// The next field of a block from `at` on whose value stands there in full. `at` moves behind it. `None` when there is no more,
/// or the rest is no HPACK.
pub fn next_literal<'a>(block: &'a [u8], at: &mut usize) -> Option<Literal<'a>> {
    loop {
        let first = *block.get(*at)?;
        let bits = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let name = integer(block, at, bits)?;
        // A field of a table, or the table's size.
        if first & 0x80 != 0 || first & 0xE0 == 0x20 {
            continue;
        }
        if name == 0 {
            text(block, at)?;
        }
        let from = *at;
        let value = text(block, at)?;
        return Some(Literal { name, value, at: from..*at });
    }
}

/// A number in the low bits of a byte, or in those behind it.
fn integer(bytes: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let mask = (1_usize << bits) - 1;
    let mut number = usize::from(*bytes.get(*at)?) & mask;
    *at += 1;
    if number < mask {
        return Some(number);
    }
    for shift in [0, 7, 14] {
        let byte = usize::from(*bytes.get(*at)?);
        *at += 1;
        number += (byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn text<'a>(bytes: &'a [u8], at: &mut usize) -> Option<Text<'a>> {
    let huffman = bytes.get(*at)? & 0x80 != 0;
    let length = integer(bytes, at, 7)?;
    let text = bytes.get(*at..)?.get(..length)?;
    *at += length;
    Some(Text { huffman, bytes: text })
}

/// Bits that characters have in the Huffman code: NUL, and then those of ASCII that can be printed, from the blank on.
const BITS: [u32; 96] = [
    13, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6,
    12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14,
    6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13,
];
/// None of them but the backslash has more.
const BITS_MAX: u32 = 15;

/// The text of printable ASCII that is packed in the Huffman code; `None` for any other.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(packed.len() * 2);
    let (mut code, mut bits) = (0_u32, 0_u32);
    for byte in packed {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            bits += 1;
            if let Some(character) = character(code, bits) {
                text.push(character);
                (code, bits) = (0, 0);
            } else if bits > BITS_MAX {
                return None;
            }
        }
    }
    // What is left over is filled with ones.
    (bits < 8 && code == (1 << bits) - 1).then_some(text)
}

/// Codes of one length follow each other in the order of characters, and those of the next length follow them.
fn character(code: u32, bits: u32) -> Option<u8> {
    let mut first = 0;
    for length in 5..=bits {
        first <<= 1;
        let count = BITS.iter().filter(|bits| **bits == length).count();
        if length == bits {
            let place = usize::try_from(code.checked_sub(first)?).ok()?;
            let mut of_length = BITS.iter().enumerate().filter(|(_, bits)| **bits == length);
            return of_length.nth(place).and_then(|(at, _)| u8::try_from(at + usize::from(b' ') - 1).ok());
        }
        first += u32::try_from(count).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: [u8; 15] =
        [0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x04, 0x4e, 0xae, 0x05, 0xc0, 0xb8, 0x6e, 0x09, 0x97, 0x5f];
    const ENDPOINTS: [u8; 22] = [
        0xff, 0xa3, 0x54, 0x64, 0x98, 0x74, 0x51, 0xea, 0x0f, 0xfd, 0x84, 0x4e, 0xae, 0x05, 0xc0, 0xb8, 0x6e,
        0x09, 0x97, 0x5f, 0xff, 0xe7,
    ];

    #[test]
    fn packed_texts_are_unpacked() {
        assert_eq!(unpack(&URL).as_deref(), Some(&b"http://127.0.0.1:2379"[..]));
        assert_eq!(unpack(&ENDPOINTS).as_deref(), Some(&b"#initially=[127.0.0.1:2379]"[..]));
        assert_eq!(unpack(&[]).as_deref(), Some(&b""[..]));
        for wrong in [&[0xff; 1][..], &[0xff; 4], &[0x00, 0xff, 0xff], &URL[..14]] {
            assert!(unpack(wrong).is_none_or(|text| text != b"http://127.0.0.1:2379"), "{wrong:x?}");
        }
    }

    #[test]
    fn fields_of_tables_and_changes_of_their_size_are_stepped_over() {
        let block = [
            &[0x88, 0x3f, 0x01, 0x5f, 1, b'a', 0x40, 1, b'n', 0x82, 0xaf, 0x05][..],
            &[0xbe, 0x10, 0x01, b'x'],
        ]
        .concat();
        let mut at = 0;
        let mut found = Vec::new();
        while let Some(field) = next_literal(&block, &mut at) {
            found.push((field.name, field.value.unpacked(), field.at));
        }
        let text = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(found[0], (31, text("a"), 4..6));
        assert_eq!(found.len(), 2, "the last one breaks off");
        assert_eq!((found[1].0, &found[1].2), (0, &(9..12)));
    }
}
