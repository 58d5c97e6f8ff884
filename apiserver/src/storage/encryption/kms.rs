//! A key management service (KMS v2) on a unix socket: it keeps the key of our seed, the seed keeps the values.
//!
//! In: values and their paths. Out: `EncryptedObject` messages. The service is asked for each new seed (one whenever its key
//! changes), for each foreign seed once, and how it is every minute, as its contract wants. Invariants: nothing is sealed
//! with a seed whose key the service has not vouched for within three minutes; a service that does not answer holds up
//! whoever reads once, however many values there are.

use super::cipher::{Cipher, SEED};
use super::config;
use coracle_daemon::panics::Mutex;
use coracle_daemon::{clock, random};
use hyper_util::rt::TokioIo;
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use v2::key_management_service_client::KeyManagementServiceClient;

/// Generated from `proto/kms.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
pub mod v2 {
    tonic::include_proto!("v2");
}

/// Generated from `proto/sealed.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
mod sealed {
    tonic::include_proto!("sealed");
}

use sealed::EncryptedObject;

/// A seed's life after the service last said that its key is still the one to write with.
const TRUSTED: Duration = Duration::from_secs(3 * 60);
const ASK_EVERY: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a service that did not answer is not asked for seeds.
const SILENCE: Duration = Duration::from_secs(5);
const NOT_ASKED: &str = "the service has not been asked yet";
const KEY_ID_MAX: usize = 1024;
const SOURCE_MAX: usize = 1024;
const ANNOTATIONS_MAX: usize = 32 << 10;
/// Foreign seeds that are remembered.
const OPENED_MAX: usize = 4096;
const AES_GCM_KEY: i32 = 0;
const SEED_TYPE: i32 = 1;

/// What is written with.
struct Writing {
    cipher: Cipher,
    /// All but the data.
    envelope: EncryptedObject,
    until: clock::Instant,
}

/// One service.
pub struct Kms {
    name: String,
    limit: Duration,
    client: KeyManagementServiceClient<Channel>,
    /// `Err`: why there is none.
    writing: watch::Sender<Result<Arc<Writing>, String>>,
    opened: Mutex<HashMap<Vec<u8>, Cipher>>,
    /// One at a time asks for a seed: those who wait for the same one then have it.
    asking: tokio::sync::Mutex<()>,
    /// Since when and why the service does not answer for seeds.
    silent: Mutex<Option<(clock::Instant, String)>>,
    fell_silent: tokio::sync::Notify,
}

impl Kms {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(config: &config::Kms) -> Self {
        let path = config.endpoint.trim_start_matches("unix://").to_owned();
        // The address is never looked at: every connection goes to the socket.
        let channel =
            Endpoint::from_static("http://kms").connect_with_connector_lazy(tower::service_fn(move |_| {
                let path = path.clone();
                async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
            }));
        Self {
            name: config.name.clone(),
            limit: config.limit(),
            client: KeyManagementServiceClient::new(channel),
            writing: watch::Sender::new(Err(NOT_ASKED.to_owned())),
            opened: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            silent: Mutex::default(),
            fell_silent: tokio::sync::Notify::new(),
        }
    }

    /// Why the service is not well; `None` when it is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let told = |why: &str| format!("kmsv2 Provider {} is not healthy, error: {why}", self.name);
        match self.writing.borrow().as_ref() {
            Ok(writing) if writing.until > clock::Instant::now() => None,
            Ok(_) => Some(told("its last answer is too old")),
            Err(why) => Some(told(why)),
        }
    }

    /// Asks the service again and again how it is, until dropped; `well` is called whenever it has come to be well.
    pub async fn follow(&self, well: impl Fn() + Send) {
        loop {
            let pause = match self.ask().await {
                Ok(()) => ASK_EVERY,
                Err(why) => {
                    tracing::warn!(provider = self.name, why, "the key management service is not well");
                    // What is written with stays until its time is over.
                    if self.fault().is_some() {
                        self.writing.send_modify(|writing| *writing = Err(why));
                    }
                    ASK_AGAIN
                }
            };
            if pause == ASK_EVERY {
                *self.silent.lock() = None;
                well();
            }
            tokio::select! {
                () = clock::sleep(pause) => {}
                // What could not be opened meanwhile is to be read again before long.
                () = self.fell_silent.notified() => clock::sleep(SILENCE).await,
            }
        }
    }

    /// Asks how the service is, and for a new seed when its key is another.
    async fn ask(&self) -> Result<(), String> {
        let status = self.call(|mut client| async move { client.status(v2::StatusRequest {}).await }).await?;
        if status.healthz != "ok" {
            return Err(format!("got unexpected healthz status: {}", status.healthz));
        }
        if !["v2", "v2beta1"].contains(&status.version.as_str()) {
            return Err(format!("expected KMSv2 API version v2, got {}", status.version));
        }
        key_id_fits(&status.key_id)?;
        let until = clock::Instant::now() + TRUSTED;
        let current = self.writing.borrow().as_ref().ok().cloned();
        let writing = match current.filter(|writing| writing.envelope.key_id == status.key_id) {
            Some(same) => Writing { cipher: same.cipher.clone(), envelope: same.envelope.clone(), until },
            None => self.seed(until).await?,
        };
        self.writing.send_modify(|current| *current = Ok(Arc::new(writing)));
        Ok(())
    }

    async fn seed(&self, until: clock::Instant) -> Result<Writing, String> {
        let mut seed = [0; SEED];
        random::fill(&mut seed);
        let request = v2::EncryptRequest { plaintext: seed.to_vec(), uid: random::uuid() };
        let answer = self.call(|mut client| async move { client.encrypt(request).await }).await;
        let answer = answer.map_err(|error| format!("failed to encrypt DEK, error: {error}"))?;
        let envelope = EncryptedObject {
            encrypted_data: Vec::new(),
            key_id: answer.key_id,
            encrypted_dek_source: answer.ciphertext,
            annotations: answer.annotations,
            encrypted_dek_source_type: SEED_TYPE,
        };
        fits(&envelope)?;
        self.remember(source(&envelope), Cipher::Seed(seed));
        Ok(Writing { cipher: Cipher::Seed(seed), envelope, until })
    }

    async fn call<T, F>(
        &self,
        call: impl FnOnce(KeyManagementServiceClient<Channel>) -> F,
    ) -> Result<T, String>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        self.answer(call).await.map_err(|status| told(&status))
    }

    async fn answer<T, F>(
        &self,
        call: impl FnOnce(KeyManagementServiceClient<Channel>) -> F,
    ) -> Result<T, tonic::Status>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        match clock::timeout(self.limit, call(self.client.clone())).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(tonic::Status::deadline_exceeded("context deadline exceeded")),
        }
    }

    /// The message for `data`.
    ///
    /// # Errors
    /// The service has not been well for too long.
    pub async fn seal(&self, data: &[u8], path: &[u8]) -> Result<Vec<u8>, String> {
        let mut told = self.writing.subscribe();
        // The first answer may be on its way: it takes up to two calls.
        let asked = |writing: &Result<_, String>| writing.as_ref().err().is_none_or(|why| why != NOT_ASKED);
        let _ = clock::timeout(2 * self.limit, told.wait_for(asked)).await;
        let writing = self.writing.borrow().clone()?;
        if writing.until < clock::Instant::now() {
            return Err(format!("the key of provider {} expired: its service does not answer", self.name));
        }
        let encrypted_data = writing.cipher.seal(data, path)?;
        Ok(EncryptedObject { encrypted_data, ..writing.envelope.clone() }.encode_to_vec())
    }

    /// The data of a message, and whether another key should keep it.
    ///
    /// # Errors
    /// It is no such message, or the service cannot open its seed.
    pub async fn open(&self, data: &[u8], path: &[u8]) -> Result<(Vec<u8>, bool), String> {
        let object = EncryptedObject::decode(data).map_err(|error| error.to_string())?;
        if object.encrypted_data.is_empty() {
            return Err("encrypted data is empty".to_owned());
        }
        fits(&object)?;
        let source = source(&object);
        let known = self.known(&source);
        let cipher = match known {
            Some(cipher) => cipher,
            None => self.unseal(&object, source).await?,
        };
        let opened = cipher.open(&object.encrypted_data, path)?;
        let stale = self.writing.borrow().as_ref().is_ok_and(|writing| {
            writing.envelope.key_id != object.key_id
                || writing.envelope.encrypted_dek_source_type != object.encrypted_dek_source_type
        });
        Ok((opened, stale))
    }

    fn known(&self, source: &[u8]) -> Option<Cipher> {
        self.opened.lock().get(source).cloned()
    }

    async fn unseal(&self, object: &EncryptedObject, source: Vec<u8>) -> Result<Cipher, String> {
        let _turn = self.asking.lock().await;
        if let Some(cipher) = self.known(&source) {
            return Ok(cipher);
        }
        if let Some((since, why)) = &*self.silent.lock()
            && since.elapsed() < SILENCE
        {
            return Err(why.clone());
        }
        let request = v2::DecryptRequest {
            ciphertext: object.encrypted_dek_source.clone(),
            uid: random::uuid(),
            key_id: object.key_id.clone(),
            annotations: object.annotations.clone(),
        };
        let answer = self.answer(|mut client| async move { client.decrypt(request).await }).await;
        let key = answer.map_err(|status| self.refused(&status))?.plaintext;
        let cipher = if object.encrypted_dek_source_type == AES_GCM_KEY {
            Cipher::Gcm(key)
        } else {
            let seed: Result<[u8; SEED], _> = key.try_into();
            let bad = |key: Vec<u8>| format!("invalid seed length {} used for key generation", key.len());
            Cipher::Seed(seed.map_err(bad)?)
        };
        self.remember(source, cipher.clone());
        Ok(cipher)
    }

    /// Why there is no seed. A service that is away or hangs is left alone for a while.
    fn refused(&self, status: &tonic::Status) -> String {
        let why = format!("failed to decrypt DEK, error: {}", told(status));
        if matches!(status.code(), tonic::Code::DeadlineExceeded | tonic::Code::Unavailable) {
            *self.silent.lock() = Some((clock::Instant::now(), why.clone()));
            self.fell_silent.notify_one();
        }
        why
    }

    fn remember(&self, source: Vec<u8>, cipher: Cipher) {
        let mut opened = self.opened.lock();
        if opened.len() >= OPENED_MAX {
            opened.clear();
        }
        opened.insert(source, cipher);
    }
}

fn told(status: &tonic::Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

/// What tells one seed from all others: the message without its data.
fn source(object: &EncryptedObject) -> Vec<u8> {
    let mut key = object.encrypted_dek_source_type.to_be_bytes().to_vec();
    let mut annotations: Vec<(&String, &Vec<u8>)> = object.annotations.iter().collect();
    annotations.sort();
    let parts = [object.key_id.as_bytes(), &object.encrypted_dek_source].into_iter();
    for part in parts.chain(annotations.into_iter().flat_map(|(name, value)| [name.as_bytes(), value])) {
        key.extend((part.len() as u64).to_be_bytes());
        key.extend_from_slice(part);
    }
    key
}

fn key_id_fits(id: &str) -> Result<(), String> {
    if id.is_empty() {
        return Err("failed to validate key id: keyID is empty".to_owned());
    }
    if id.len() > KEY_ID_MAX {
        let length = id.len();
        return Err(format!(
            "failed to validate key id: keyID is {length} bytes, which exceeds the max size of {KEY_ID_MAX}"
        ));
    }
    Ok(())
}

fn fits(object: &EncryptedObject) -> Result<(), String> {
    if ![AES_GCM_KEY, SEED_TYPE].contains(&object.encrypted_dek_source_type) {
        return Err(format!("unknown encryptedDEKSourceType: {}", object.encrypted_dek_source_type));
    }
    if object.encrypted_dek_source.is_empty() || object.encrypted_dek_source.len() > SOURCE_MAX {
        return Err(format!(
            "failed to validate encrypted DEK source: encrypted DEK source is {} bytes, expected 1 to {SOURCE_MAX}",
            object.encrypted_dek_source.len()
        ));
    }
    key_id_fits(&object.key_id)?;
    let size: usize = object.annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > ANNOTATIONS_MAX {
        return Err(format!(
            "failed to validate annotations: total size of annotations is {size}, which exceeds the max size of {ANNOTATIONS_MAX}"
        ));
    }
    Ok(())
}
