//! A key management service (KMS v2) on a unix socket: it keeps the key of our seed, the seed keeps the values.
//!
//! In: values and their paths. Out: `EncryptedObject` messages. The service is asked for each new seed (one whenever its key
//! changes), for each foreign seed once, and how it is every minute, as its contract wants. Invariants: nothing is sealed
//! with a seed whose key the service has not named within three minutes, nor with one that it sealed with another key than it
//! names; a service that does not answer holds up whoever reads once, however many values there are.

use super::cipher::{Cipher, SEED};
use super::config;
use super::rules::together;
use coracle_daemon::panics::Mutex;
use coracle_daemon::{clock, random};
use hyper_util::rt::TokioIo;
use prost::Message;
use sha2::{Digest, Sha256};
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

/// A seed's life after the service last named its key as the one to write with, however it is otherwise.
const TRUSTED: Duration = Duration::from_secs(3 * 60);
const ASK_EVERY: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a service that did not answer is not asked for seeds.
const SILENCE: Duration = Duration::from_secs(5);
const NOT_ASKED: &str = "the service has not been asked yet";
const NO_SEED: &str = "got unexpected nil transformer";
/// No error and no time, as Go shows them.
const NIL: &str = "<nil>";
const NEVER: &str = "0001-01-01T00:00:00Z";
const API_VERSIONS: [&str; 2] = ["v2", "v2beta1"];
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
    /// The same time for people.
    until_told: jiff::Timestamp,
}

/// What is known of a service.
#[derive(Clone)]
struct Known {
    writing: Option<Arc<Writing>>,
    /// What is wrong with it.
    fault: Option<String>,
}

/// One service.
pub struct Kms {
    name: String,
    limit: Duration,
    client: KeyManagementServiceClient<Channel>,
    known: watch::Sender<Known>,
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
            known: watch::Sender::new(Known { writing: None, fault: Some(NOT_ASKED.to_owned()) }),
            opened: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            silent: Mutex::default(),
            fell_silent: tokio::sync::Notify::new(),
        }
    }

    /// Why the service is not well; `None` when it is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.known.borrow().fault.clone()
    }

    /// Asks the service again and again how it is, until dropped; `well` is called whenever it has come to be well.
    pub async fn follow(&self, well: impl Fn() + Send) {
        loop {
            let fault = self.ask().await.err();
            let pause = if fault.is_none() { ASK_EVERY } else { ASK_AGAIN };
            if let Some(why) = &fault {
                tracing::warn!(provider = self.name, why, "the key management service is not well");
            }
            self.known.send_modify(|known| known.fault = fault);
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
        let status = self.call(|mut client| async move { client.status(v2::StatusRequest {}).await }).await;
        let status = status.map_err(|why| {
            let name = &self.name;
            format!(
                "failed to perform status section of the healthz check for KMS Provider {name}, error: {why}"
            )
        })?;
        let mut faults = Vec::new();
        if status.healthz != "ok" {
            faults.push(format!("got unexpected healthz status: {}", status.healthz));
        }
        if !API_VERSIONS.contains(&status.version.as_str()) {
            faults.push(format!("expected KMSv2 API version v2, got {}", status.version));
        }
        match key_id_fits(&status.key_id) {
            Err(why) => {
                faults.push(format!("got invalid KMSv2 KeyID hash {:?}: {why}", hash(&status.key_id)));
            }
            Ok(()) => faults.extend(self.write_with(&status.key_id).await.err()),
        }
        match together(&faults) {
            Some(why) => Err(format!("kmsv2 Provider {} is not healthy, error: {why}", self.name)),
            None => Ok(()),
        }
    }

    /// Has values sealed with a seed of this key for a while longer.
    async fn write_with(&self, key_id: &str) -> Result<(), String> {
        let (until, until_told) = (clock::Instant::now() + TRUSTED, clock::now() + TRUSTED);
        let known = self.known.borrow().writing.clone();
        let same = known.as_ref().filter(|writing| writing.envelope.key_id == key_id);
        let (cipher, envelope) = match same {
            Some(same) => (same.cipher.clone(), same.envelope.clone()),
            None => {
                let uid = random::uuid();
                let kept = known.as_deref();
                let refused =
                    |why: &str, sealed_with: &str| not_rotated(&uid, kept, why, key_id, sealed_with);
                let (cipher, envelope) = self.seed(&uid).await.map_err(|why| refused(&why, ""))?;
                if envelope.key_id != key_id {
                    return Err(refused(NIL, &envelope.key_id));
                }
                (cipher, envelope)
            }
        };
        let writing = Some(Arc::new(Writing { cipher, envelope, until, until_told }));
        self.known.send_modify(|known| known.writing = writing);
        Ok(())
    }

    async fn seed(&self, uid: &str) -> Result<(Cipher, EncryptedObject), String> {
        let mut seed = [0; SEED];
        random::fill(&mut seed);
        let request = v2::EncryptRequest { plaintext: seed.to_vec(), uid: uid.to_owned() };
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
        Ok((Cipher::Seed(seed), envelope))
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
        let mut known = self.known.subscribe();
        // The first answer may be on its way: it takes up to two calls.
        let asked = |known: &Known| known.fault.as_deref() != Some(NOT_ASKED);
        let _ = clock::timeout(2 * self.limit, known.wait_for(asked)).await;
        let writing = self.known.borrow().writing.clone().ok_or(NO_SEED)?;
        if writing.until < clock::Instant::now() {
            return Err(format!(
                "encryptedDEKSource with keyID hash {:?} expired at {} (current time is {})",
                hash(&writing.envelope.key_id),
                clock::rfc3339_seconds(writing.until_told),
                clock::rfc3339_seconds(clock::now())
            ));
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
        let cipher = match self.opened(&source) {
            Some(cipher) => cipher,
            None => self.unseal(&object, source).await?,
        };
        let opened = cipher.open(&object.encrypted_data, path)?;
        let stale = self.known.borrow().writing.as_ref().is_some_and(|writing| {
            writing.envelope.key_id != object.key_id
                || writing.envelope.encrypted_dek_source_type != object.encrypted_dek_source_type
        });
        Ok((opened, stale))
    }

    fn opened(&self, source: &[u8]) -> Option<Cipher> {
        self.opened.lock().get(source).cloned()
    }

    async fn unseal(&self, object: &EncryptedObject, source: Vec<u8>) -> Result<Cipher, String> {
        let _turn = self.asking.lock().await;
        if let Some(cipher) = self.opened(&source) {
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

/// What stands for an id where people may read it.
fn hash(id: &str) -> String {
    if id.is_empty() { String::new() } else { format!("sha256:{:x}", Sha256::digest(id)) }
}

/// Why there is no new seed, as upstream's check of health says it.
fn not_rotated(uid: &str, known: Option<&Writing>, why: &str, key_id: &str, sealed_with: &str) -> String {
    let state = if known.is_some() { NIL } else { NO_SEED };
    let known_id = known.map_or("", |writing| &writing.envelope.key_id);
    let until = known.map_or(NEVER.to_owned(), |writing| clock::rfc3339_seconds(writing.until_told));
    format!(
        "failed to rotate DEK uid={uid:?}, useSeed=true, errState={state}, errGen={why}, statusKeyIDHash={:?}, encryptKeyIDHash={:?}, stateKeyIDHash={:?}, expirationTimestamp={until}",
        hash(key_id),
        hash(sealed_with),
        hash(known_id)
    )
}

fn key_id_fits(id: &str) -> Result<(), String> {
    match id.len() {
        0 => Err("keyID is empty".to_owned()),
        1..=KEY_ID_MAX => Ok(()),
        length => Err(format!("keyID is {length} bytes, which exceeds the max size of {KEY_ID_MAX}")),
    }
}

fn fits(object: &EncryptedObject) -> Result<(), String> {
    if ![AES_GCM_KEY, SEED_TYPE].contains(&object.encrypted_dek_source_type) {
        return Err(format!("unknown encryptedDEKSourceType: {}", object.encrypted_dek_source_type));
    }
    let source = "failed to validate encrypted DEK source: encrypted DEK source is";
    match object.encrypted_dek_source.len() {
        0 => return Err(format!("{source} empty")),
        1..=SOURCE_MAX => {}
        length => {
            return Err(format!("{source} {length} bytes, which exceeds the max size of {SOURCE_MAX}"));
        }
    }
    key_id_fits(&object.key_id).map_err(|why| format!("failed to validate key id: {why}"))?;
    let size: usize = object.annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > ANNOTATIONS_MAX {
        return Err(format!(
            "failed to validate annotations: total size of annotations is {size}, which exceeds the max size of {ANNOTATIONS_MAX}"
        ));
    }
    Ok(())
}
