//! gRPC's messages as they come in pieces: the numbers and lengths of their fields are told, and nothing is copied.

use anyhow::{Result, bail, ensure};

/// Bytes before a message: whether it is compressed, and its length.
pub const PREFIX: usize = 5;

/// What there is in a stream of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A field of a message, and its value when that is a varint, or else its length.
    Field(u64, u64),
    /// The end of a message.
    End,
}

/// A stream of messages.
#[derive(Debug, Default)]
pub struct Messages {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that came.
    prefixed: usize,
    /// Bytes of the message that are to come.
    left: u64,
    /// Bytes of a field's value that are to come.
    value: u64,
    /// The number in the making, and where its next bits go.
    number: u64,
    shift: u32,
    /// The field whose number is in the making, and whether that is a length.
    field: Option<(u64, bool)>,
}

impl Messages {
    /// Takes the next piece.
    ///
    /// # Errors
    /// It is no gRPC.
    pub fn feed(&mut self, mut bytes: &[u8], told: &mut impl FnMut(Told)) -> Result<()> {
        while let Some(byte) = bytes.first() {
            if self.prefixed < PREFIX {
                self.prefix[self.prefixed] = *byte;
                self.prefixed += 1;
                bytes = &bytes[1..];
                if self.prefixed < PREFIX {
                    continue;
                }
                let [compressed, length @ ..] = self.prefix;
                ensure!(compressed == 0, "a message is compressed");
                self.left = u32::from_be_bytes(length).into();
            } else if self.value > 0 {
                let step = self.value.min(bytes.len() as u64);
                bytes = &bytes[usize::try_from(step)?..];
                self.value -= step;
                self.left -= step;
            } else {
                bytes = &bytes[1..];
                self.left -= 1;
                if let Some(number) = self.digit(*byte)? {
                    self.take(number, told)?;
                }
            }
            if self.left == 0 {
                ensure!(self.shift == 0 && self.field.is_none(), "a message breaks off");
                self.prefixed = 0;
                told(Told::End);
            }
        }
        Ok(())
    }

    /// Takes a varint's next byte; returns the number with its last.
    fn digit(&mut self, byte: u8) -> Result<Option<u64>> {
        ensure!(self.shift < u64::BITS, "a number is too long");
        self.number |= u64::from(byte & 0x7F) << self.shift;
        self.shift += 7;
        if byte & 0x80 != 0 {
            return Ok(None);
        }
        self.shift = 0;
        Ok(Some(std::mem::take(&mut self.number)))
    }

    /// Takes a field's key, or what follows it.
    fn take(&mut self, number: u64, told: &mut impl FnMut(Told)) -> Result<()> {
        let Some((field, is_length)) = self.field.take() else {
            match number & 7 {
                0 => self.field = Some((number >> 3, false)),
                1 => self.value = 8,
                2 => self.field = Some((number >> 3, true)),
                5 => self.value = 4,
                other => bail!("a field of wire type {other}"),
            }
            ensure!(self.value <= self.left, "a message breaks off");
            return Ok(());
        };
        told(Told::Field(field, number));
        if is_length {
            ensure!(number <= self.left, "a message breaks off");
            self.value = number;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_etcd::proto::{Event, KeyValue, RangeResponse, ResponseHeader, WatchResponse};
    use prost::Message;

    fn framed(message: &impl Message) -> Vec<u8> {
        let body = message.encode_to_vec();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[0][..], &length, &body].concat()
    }

    fn fields(pieces: &[&[u8]]) -> Result<Vec<Told>> {
        let (mut messages, mut all) = (Messages::default(), Vec::new());
        for piece in pieces {
            messages.feed(piece, &mut |told| all.push(told))?;
        }
        Ok(all)
    }

    #[test]
    fn fields_are_told_wherever_a_message_is_cut() {
        let kv = KeyValue { key: "k".into(), value: vec![b'v'; 200].into(), ..KeyValue::default() };
        let header = Some(ResponseHeader { revision: 300, ..ResponseHeader::default() });
        let event = Event { kv: Some(kv.clone()), ..Event::default() };
        let watched = WatchResponse { header, events: vec![event; 2], watch_id: -1, ..Default::default() };
        let ranged = RangeResponse { kvs: vec![kv], count: 1000, ..RangeResponse::default() };
        let stream = [framed(&watched), framed(&RangeResponse::default()), framed(&ranged)].concat();
        let (event, kv) = (watched.events[0].encoded_len() as u64, ranged.kvs[0].encoded_len() as u64);
        let wanted = [
            Told::Field(1, 3),
            Told::Field(2, u64::MAX),
            Told::Field(11, event),
            Told::Field(11, event),
            Told::End,
            Told::End,
            Told::Field(2, kv),
            Told::Field(4, 1000),
            Told::End,
        ];
        for cut in 0..stream.len() {
            assert_eq!(fields(&[&stream[..cut], &stream[cut..]]).unwrap(), wanted, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(fields(&bytes).unwrap(), wanted);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (what, bytes) in [
            ("compressed", &[1, 0, 0, 0, 0][..]),
            ("a key without a value", &[0, 0, 0, 0, 1, 0x08]),
            ("half a number", &[0, 0, 0, 0, 2, 0x08, 0x80]),
            ("a value longer than the message", &[0, 0, 0, 0, 2, 0x0A, 1]),
            ("eight bytes of which one is there", &[0, 0, 0, 0, 2, 0x09, 1]),
            ("a group", &[0, 0, 0, 0, 2, 0x0B, 0]),
            (
                "a number of more than 64 bits",
                &[0, 0, 0, 0, 12, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
            ),
        ] {
            assert!(fields(&[bytes]).is_err(), "{what}");
        }
        let fixed = [0, 0, 0, 0, 14, 0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x0D, 1, 2, 3, 4];
        assert_eq!(fields(&[&fixed]).unwrap(), [Told::End], "fixed ones have no number to tell");
    }
}
