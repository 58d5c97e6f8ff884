//! How messages are put into gRPC's frames: in buffers of their own size. tonic's own codec takes two buffers of 8 KiB for each
//! call, of which most calls need a tenth, and lets the buffer of a large answer grow step by step.

use prost::Message;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// Bytes of a buffer at first.
const BUFFER: usize = 1024;
/// Bytes of messages that go together as one frame.
const TOGETHER: usize = 32 << 10;

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER, TOGETHER)
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Fitting<T, U> {
    messages: PhantomData<(T, U)>,
}

impl<T, U> Default for Fitting<T, U> {
    fn default() -> Self {
        Self { messages: PhantomData }
    }
}

impl<T: Message + 'static, U: Message + Default + 'static> Codec for Fitting<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = FittingEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        FittingEncoder { message: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(settings())
    }
}

/// Puts messages into buffers.
#[derive(Clone, Debug)]
pub struct FittingEncoder<T> {
    message: PhantomData<T>,
}

impl<T: Message> Encoder for FittingEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}
