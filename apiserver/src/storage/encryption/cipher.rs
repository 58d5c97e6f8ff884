//! The ciphers of kube-apiserver's providers: bytes in, bytes out, laid out as Kubernetes lays them out.
//!
//!     aescbc     IV (16) ‖ AES-CBC with PKCS #7          not authenticated
//!     aesgcm     nonce (12) ‖ AES-GCM ‖ tag (16)         bound to the key's path
//!     secretbox  nonce (24) ‖ tag (16) ‖ XSalsa20
//!     seed       info (32) ‖ aesgcm under HKDF(seed, info)

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{AesGcm, KeyInit, Nonce};
use coracle_daemon::random;
use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{Tag, XSalsa20Poly1305};
use hkdf::Hkdf;
use sha2::Sha256;

const CBC_BLOCK: usize = 16;
const GCM_NONCE: usize = 12;
const BOX_NONCE: usize = 24;
const BOX_TAG: usize = 16;
/// Of seeds, of what a key is derived from beside them, and of the derived key.
pub const SEED: usize = 32;

const TOO_SHORT: &str = "the stored data was shorter than the required size";

/// A cipher with its key.
#[derive(Clone)]
pub enum Cipher {
    /// AES-CBC with a key of 16, 24 or 32 bytes.
    Cbc(Vec<u8>),
    /// AES-GCM, likewise.
    Gcm(Vec<u8>),
    /// XSalsa20 and Poly1305.
    SecretBox([u8; SEED]),
    /// AES-GCM with a key of its own for every value.
    Seed([u8; SEED]),
}

impl Cipher {
    /// The stored form of `data`, which lives at `path`.
    ///
    /// # Errors
    /// The key's length does not fit.
    pub fn seal(&self, data: &[u8], path: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::Cbc(key) => cbc_seal(key, data),
            Self::Gcm(key) => gcm_seal(key, data, path),
            Self::SecretBox(key) => box_seal(key, data),
            Self::Seed(seed) => {
                let mut sealed = drawn::<SEED>().to_vec();
                let key = derived(seed, &sealed)?;
                sealed.extend(gcm_seal(&key, data, path)?);
                Ok(sealed)
            }
        }
    }

    /// What was sealed.
    ///
    /// # Errors
    /// It was not sealed by this key, or for another path.
    pub fn open(&self, data: &[u8], path: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::Cbc(key) => cbc_open(key, data),
            Self::Gcm(key) => gcm_open(key, data, path),
            Self::SecretBox(key) => box_open(key, data),
            Self::Seed(seed) => {
                let (info, sealed) = data.split_at_checked(SEED).ok_or(TOO_SHORT)?;
                gcm_open(&derived(seed, info)?, sealed, path)
            }
        }
    }
}

fn drawn<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    random::fill(&mut bytes);
    bytes
}

fn derived(seed: &[u8; SEED], info: &[u8]) -> Result<[u8; SEED], String> {
    let mut key = [0; SEED];
    let kdf = Hkdf::<Sha256>::from_prk(seed).map_err(|error| error.to_string())?;
    kdf.expand(info, &mut key).map_err(|error| error.to_string())?;
    Ok(key)
}

fn bad_key(length: usize) -> String {
    format!("crypto/aes: invalid key size {length}")
}

fn cbc_seal(key: &[u8], data: &[u8]) -> Result<Vec<u8>, String> {
    fn with<C: aes::cipher::BlockCipher + BlockEncryptMut + aes::cipher::KeyInit>(
        key: &[u8],
        iv: &[u8],
        data: &[u8],
    ) -> Result<Vec<u8>, String> {
        let cipher = cbc::Encryptor::<C>::new_from_slices(key, iv).map_err(|error| error.to_string())?;
        Ok(cipher.encrypt_padded_vec_mut::<Pkcs7>(data))
    }
    let mut sealed = drawn::<CBC_BLOCK>().to_vec();
    let body = match key.len() {
        16 => with::<Aes128>(key, &sealed, data),
        24 => with::<Aes192>(key, &sealed, data),
        32 => with::<Aes256>(key, &sealed, data),
        length => Err(bad_key(length)),
    };
    sealed.extend(body?);
    Ok(sealed)
}

fn cbc_open(key: &[u8], data: &[u8]) -> Result<Vec<u8>, String> {
    fn with<C: aes::cipher::BlockCipher + BlockDecryptMut + aes::cipher::KeyInit>(
        key: &[u8],
        iv: &[u8],
        data: &[u8],
    ) -> Result<Vec<u8>, String> {
        let cipher = cbc::Decryptor::<C>::new_from_slices(key, iv).map_err(|error| error.to_string())?;
        cipher.decrypt_padded_vec_mut::<Pkcs7>(data).map_err(|_| "invalid padding on input".to_owned())
    }
    let (iv, body) = data.split_at_checked(CBC_BLOCK).ok_or(TOO_SHORT)?;
    if !body.len().is_multiple_of(CBC_BLOCK) {
        return Err("the stored data is not a multiple of the block size".to_owned());
    }
    match key.len() {
        16 => with::<Aes128>(key, iv, body),
        24 => with::<Aes192>(key, iv, body),
        32 => with::<Aes256>(key, iv, body),
        length => Err(bad_key(length)),
    }
}

/// AES-GCM of any key size, as one object.
fn gcm(key: &[u8]) -> Result<Box<dyn Gcm>, String> {
    let made: Option<Box<dyn Gcm>> = match key.len() {
        16 => AesGcm::<Aes128, U12>::new_from_slice(key).ok().map(|aead| Box::new(aead) as _),
        24 => AesGcm::<Aes192, U12>::new_from_slice(key).ok().map(|aead| Box::new(aead) as _),
        32 => AesGcm::<Aes256, U12>::new_from_slice(key).ok().map(|aead| Box::new(aead) as _),
        _ => None,
    };
    made.ok_or_else(|| bad_key(key.len()))
}

trait Gcm {
    fn seal(&self, nonce: &[u8], payload: Payload<'_, '_>) -> Option<Vec<u8>>;
    fn open(&self, nonce: &[u8], payload: Payload<'_, '_>) -> Option<Vec<u8>>;
}

impl<T: Aead<NonceSize = U12>> Gcm for T {
    fn seal(&self, nonce: &[u8], payload: Payload<'_, '_>) -> Option<Vec<u8>> {
        self.encrypt(Nonce::from_slice(nonce), payload).ok()
    }

    fn open(&self, nonce: &[u8], payload: Payload<'_, '_>) -> Option<Vec<u8>> {
        self.decrypt(Nonce::from_slice(nonce), payload).ok()
    }
}

fn gcm_seal(key: &[u8], data: &[u8], path: &[u8]) -> Result<Vec<u8>, String> {
    let mut sealed = drawn::<GCM_NONCE>().to_vec();
    let body = gcm(key)?.seal(&sealed, Payload { msg: data, aad: path });
    sealed.extend(body.ok_or("the value is too large to be encrypted")?);
    Ok(sealed)
}

fn gcm_open(key: &[u8], data: &[u8], path: &[u8]) -> Result<Vec<u8>, String> {
    let (nonce, body) = data.split_at_checked(GCM_NONCE).ok_or(TOO_SHORT)?;
    let opened = gcm(key)?.open(nonce, Payload { msg: body, aad: path });
    opened.ok_or_else(|| "cipher: message authentication failed".to_owned())
}

fn box_seal(key: &[u8; SEED], data: &[u8]) -> Result<Vec<u8>, String> {
    let nonce = drawn::<BOX_NONCE>();
    let mut body = data.to_vec();
    let tag = XSalsa20Poly1305::new(key.into())
        .encrypt_in_place_detached(&nonce.into(), b"", &mut body)
        .map_err(|_| "the value is too large to be encrypted")?;
    Ok([nonce.as_slice(), &tag, &body].concat())
}

fn box_open(key: &[u8; SEED], data: &[u8]) -> Result<Vec<u8>, String> {
    let (nonce, rest) = data.split_at_checked(BOX_NONCE).ok_or(TOO_SHORT)?;
    let (tag, body) = rest.split_at_checked(BOX_TAG).ok_or(TOO_SHORT)?;
    let mut body = body.to_vec();
    XSalsa20Poly1305::new(key.into())
        .decrypt_in_place_detached(nonce.into(), b"", &mut body, Tag::from_slice(tag))
        .map_err(|_| "failed to decrypt data".to_owned())?;
    Ok(body)
}
