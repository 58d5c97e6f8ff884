//! The randomness seam. Seeded once in a simulation, from the operating system otherwise.

use rand::{RngCore, SeedableRng, rngs::StdRng};
use std::cell::RefCell;

thread_local! {
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// Makes every later draw of this thread, which a simulation runs on, follow from `seed`.
pub fn seed(seed: u64) {
    SEEDED.set(Some(StdRng::seed_from_u64(seed)));
}

/// Fills `bytes`; good enough for keys and tokens unless [`seed`] was called.
pub fn fill(bytes: &mut [u8]) {
    SEEDED.with_borrow_mut(|seeded| match seeded {
        Some(rng) => rng.fill_bytes(bytes),
        None => rand::rng().fill_bytes(bytes),
    });
}

/// A uniformly drawn number.
#[must_use]
pub fn u64() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// A number in `0..bound`; 0 for a bound of 0.
#[must_use]
pub fn below(bound: u64) -> u64 {
    if bound == 0 { 0 } else { u64() % bound }
}

/// A fraction in `0.0..1.0`, for jitter.
#[must_use]
pub fn fraction() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let unit = (u64() >> 11) as f64;
    unit / 9_007_199_254_740_992.0
}

/// A version-4 UUID (RFC 9562, section 5.4) in lower-case text.
#[must_use]
pub fn uuid() -> String {
    let mut b = [0; 16];
    fill(&mut b);
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let n = u128::from_be_bytes(b);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        n >> 96,
        (n >> 80) & 0xffff,
        (n >> 64) & 0xffff,
        (n >> 48) & 0xffff,
        n & 0xffff_ffff_ffff
    )
}

/// `length` letters of the alphabet that Kubernetes uses for generated names (no vowels, no look-alikes).
#[must_use]
pub fn name_suffix(length: usize) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..length).map(|_| char::from(ALPHABET[below(27) as usize])).collect()
}
