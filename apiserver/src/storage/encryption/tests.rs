//! Ciphers, rules and a key management service, without a server around them.

use super::cipher::Cipher;
use super::kms::v2;
use super::rules::Rules;
use super::{config, fault};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::status::GroupResource;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

const PATH: &[u8] = b"/registry/secrets/default/a";

fn rules(text: &str) -> anyhow::Result<Rules> {
    let text =
        format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n{text}");
    Rules::compile(&config::read(&text)?)
}

fn key(fill: u8, length: usize) -> String {
    STANDARD.encode(vec![fill; length])
}

/// A rule for secrets with these providers.
fn secrets(providers: &[String]) -> String {
    format!("- resources: [secrets]\n  providers:\n  - {}\n", providers.join("\n  - "))
}

fn keyed(scheme: &str, keys: &[(&str, u8)]) -> String {
    let keys: Vec<String> =
        keys.iter().map(|(name, fill)| format!("{{name: {name}, secret: {}}}", key(*fill, 32))).collect();
    format!("{scheme}: {{keys: [{}]}}", keys.join(", "))
}

async fn sealed(rules: &Rules, text: &str) -> Vec<u8> {
    let chain = rules.of(&GroupResource::new("", "secrets")).expect("a chain");
    chain.seal(text.as_bytes(), PATH).await.expect("sealed")
}

async fn opened(rules: &Rules, stored: &[u8]) -> Result<(String, bool), String> {
    let chain = rules.of(&GroupResource::new("", "secrets")).expect("a chain");
    let (value, stale) = chain.open(stored, PATH).await?;
    Ok((String::from_utf8(value).expect("text"), stale))
}

/// Made by others: OpenSSL (CBC), Python's cryptography (GCM, HKDF), and the vector of NaCl's own tests (secretbox).
#[test]
fn what_others_sealed_is_opened() {
    let hex = |text: &str| hex::decode(text).expect("hex");
    let cases = [
        (Cipher::Cbc(vec![1; 32]), CBC_256, "hello, at rest"),
        (Cipher::Cbc(vec![2; 16]), CBC_128, "hello, at rest"),
        (Cipher::Gcm(vec![3; 32]), GCM_256, "hello, at rest"),
        (Cipher::Gcm(vec![4; 24]), GCM_192, "hello, at rest"),
        (Cipher::Seed([5; 32]), SEEDED, "hello, at rest"),
    ];
    for (at, (cipher, stored, plain)) in cases.into_iter().enumerate() {
        assert_eq!(cipher.open(&hex(stored), PATH), Ok(plain.as_bytes().to_vec()), "case {at}");
    }
    let mut box_key = [0; 32];
    box_key.copy_from_slice(&hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389"));
    let opened = Cipher::SecretBox(box_key).open(&hex(&[BOX_NONCE, BOX].concat()), PATH);
    assert_eq!(opened, Ok(hex(BOX_PLAIN)));
}

#[tokio::test]
async fn every_provider_opens_what_it_sealed_and_tells_what_was_changed_or_moved() {
    for (scheme, bound) in [("aescbc", false), ("aesgcm", true), ("secretbox", false)] {
        let rules = rules(&secrets(&[keyed(scheme, &[("k", 7)])])).expect("rules");
        let stored = sealed(&rules, "{\"kind\":1}").await;
        assert!(stored.starts_with(format!("k8s:enc:{scheme}:v1:k:").as_bytes()));
        assert_eq!(opened(&rules, &stored).await, Ok(("{\"kind\":1}".to_owned(), false)));
        let chain = rules.of(&GroupResource::new("", "secrets")).expect("chain");
        let elsewhere = chain.open(&stored, b"/registry/secrets/default/b").await;
        assert_eq!(elsewhere.is_err(), bound, "{scheme}");
        let mut short = stored.clone();
        short.truncate(stored.len() - 1);
        assert!(opened(&rules, &short).await.is_err(), "{scheme}");
        assert!(opened(&rules, b"{\"plain\":1}").await.is_err_and(|why| why == "no matching prefix found"));
    }
}

#[tokio::test]
async fn the_first_provider_writes_all_read_and_what_it_did_not_write_is_stale() {
    let old = rules(&secrets(&[keyed("aescbc", &[("one", 1)]), "identity: {}".to_owned()])).expect("old");
    let rotated = rules(&secrets(&[keyed("aescbc", &[("two", 2), ("one", 1)]), "identity: {}".to_owned()]))
        .expect("rotated");
    let moved = rules(&secrets(&[
        keyed("aesgcm", &[("g", 3)]),
        keyed("aescbc", &[("one", 9)]),
        keyed("aescbc", &[("one", 1)]),
    ]))
    .expect("moved");
    let off = rules(&secrets(&["identity: {}".to_owned(), keyed("aescbc", &[("one", 1)])])).expect("off");
    let by_old = sealed(&old, "text").await;
    assert_eq!(opened(&old, &by_old).await, Ok(("text".to_owned(), false)));
    for (name, rules) in [("rotated", &rotated), ("moved", &moved), ("off", &off)] {
        assert_eq!(opened(rules, &by_old).await, Ok(("text".to_owned(), true)), "{name}");
    }
    assert_eq!(opened(&old, b"text").await, Ok(("text".to_owned(), true)));
    assert_eq!(sealed(&off, "text").await, b"text");
    assert!(sealed(&rotated, "text").await.starts_with(b"k8s:enc:aescbc:v1:two:"));
}

#[test]
fn a_resource_is_kept_by_its_own_rule_its_groups_or_that_for_all() {
    let cbc = keyed("aescbc", &[("k", 1)]);
    let text = format!(
        "- resources: [secrets, widgets.example.com]\n  providers: [{{{cbc}}}]\n- resources: ['*.apps', '*.']\n  providers: [{{{cbc}}}]\n"
    );
    let some = rules(&text).expect("rules");
    let has =
        |rules: &Rules, group: &str, plural: &str| rules.of(&GroupResource::new(group, plural)).is_some();
    let cases = [("", "secrets"), ("", "pods"), ("apps", "deployments"), ("example.com", "widgets")];
    assert!(cases.iter().all(|(group, plural)| has(&some, group, plural)));
    assert!(!has(&some, "batch", "jobs") && !has(&some, "example.com", "gadgets"));
    let all = rules(
        "- resources: [events]\n  providers: [{identity: {}}]\n- resources: ['*.*']\n  providers: [{identity: {}}]\n",
    );
    assert!(has(&all.expect("rules"), "batch", "jobs"));
}

#[test]
fn a_bad_configuration_is_refused_with_what_is_wrong() {
    let identity = "providers: [{identity: {}}]";
    let cases = [
        ("  []".to_owned(), "resources: Required value: at least one resources is required"),
        (
            format!("- resources: []\n  {identity}"),
            "resources[0].resources: Required value: at least one resources[0].resources is required",
        ),
        (
            format!("- resources: ['*.*', secrets]\n  {identity}"),
            "resources[0].resources: Invalid value: [\"*.*\",\"secrets\"]: using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked",
        ),
        (
            format!("- resources: [Secrets]\n  {identity}"),
            "resources[0].resources[0]: Invalid value: \"Secrets\": resource name should not contain capital letters",
        ),
        (
            format!("- resources: [events.events.k8s.io]\n  {identity}"),
            "resources[0].resources[0]: Invalid value: \"events.events.k8s.io\": '*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file",
        ),
        (
            secrets(&["aescbc: {keys: [{name: a, secret: AAAA}]}".to_owned()]),
            "resources[0].providers[0].aescbc.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 3, expected one of [16 24 32]",
        ),
        (
            secrets(&["aesgcm: {keys: [{name: a, secret: '*'}]}".to_owned()]),
            "resources[0].providers[0].aesgcm.keys[0].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded",
        ),
        (
            secrets(&["kms: {apiVersion: v2, name: a, endpoint: 'tcp://x'}".to_owned()]),
            "resources[0].providers[0].kms.endpoint: Invalid value: \"tcp://x\": unsupported scheme \"tcp\" for KMS provider, only unix is supported",
        ),
        (
            format!("- resources: ['*.*']\n  {identity}\n- resources: [secrets]\n  {identity}"),
            "resource \"secrets\" is masked by earlier rule \"*.*\"",
        ),
    ];
    for (text, why) in cases {
        assert_eq!(rules(&text).err().map(|error| error.to_string()).as_deref(), Some(why), "{text}");
    }
    assert!(rules("- resources: [secrets]\n  providers: [{identity: {}}]\n  extra: 1").is_err());
}

#[test]
fn objects_are_readable_and_marks_tell_why_not() {
    assert_eq!(fault(b"{\"kind\":\"Secret\"}", false), None);
    let mark = b"k8s:enc:unreadable:/a\0why";
    assert_eq!(fault(mark, false).as_deref(), Some("why"));
    assert_eq!(fault(mark, true).as_deref(), Some("unable to transform key \"/a\": why"));
    assert!(
        fault(b"k8s:enc:aescbc:v1:k:\x01", false).is_some_and(|why| why.contains("identity transformer"))
    );
}

/// A service whose keys are XORs: what it sealed under a key it opens under that key only.
#[derive(Clone, Default)]
pub struct FakeKms {
    state: Arc<Mutex<FakeState>>,
}

#[derive(Default)]
struct FakeState {
    key: u8,
    sick: bool,
    /// Seeds are never told.
    hangs: bool,
    /// Seeds are never sealed.
    refuses: bool,
    /// The key that it says it has, if not its own.
    named: Option<String>,
    calls: HashMap<&'static str, usize>,
}

impl FakeKms {
    pub fn turn(&self, key: u8, sick: bool) {
        let mut state = self.state.lock();
        (state.key, state.sick) = (key, sick);
    }

    fn calls(&self, name: &str) -> usize {
        self.state.lock().calls.get(name).copied().unwrap_or_default()
    }

    /// Serves on a socket below `folder` until the returned task's owner stops.
    pub fn serve(&self, folder: &std::path::Path, tasks: &coracle_daemon::Tasks) -> PathBuf {
        let path = folder.join("kms.sock");
        let listener = tokio::net::UnixListener::bind(&path).expect("socket");
        let service = v2::key_management_service_server::KeyManagementServiceServer::new(self.clone());
        let stop = tasks.stopping();
        tasks.run("kms", async move {
            let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(service);
            let ended = server.serve_with_incoming_shutdown(incoming, stop.cancelled());
            ended.await.expect("served");
        });
        path
    }
}

#[async_trait::async_trait]
impl v2::key_management_service_server::KeyManagementService for FakeKms {
    async fn status(&self, _: Request<v2::StatusRequest>) -> Result<Response<v2::StatusResponse>, Status> {
        let mut state = self.state.lock();
        *state.calls.entry("status").or_default() += 1;
        let healthz = if state.sick { "sick" } else { "ok" }.to_owned();
        Ok(Response::new(v2::StatusResponse {
            version: "v2".to_owned(),
            healthz,
            key_id: state.named.clone().unwrap_or_else(|| state.key.to_string()),
        }))
    }

    async fn encrypt(
        &self,
        request: Request<v2::EncryptRequest>,
    ) -> Result<Response<v2::EncryptResponse>, Status> {
        let mut state = self.state.lock();
        *state.calls.entry("encrypt").or_default() += 1;
        if state.refuses {
            return Err(Status::internal("no key"));
        }
        let ciphertext = request.into_inner().plaintext.iter().map(|byte| byte ^ state.key).collect();
        let annotations = HashMap::from([("local.example.com".to_owned(), b"note".to_vec())]);
        Ok(Response::new(v2::EncryptResponse { ciphertext, key_id: state.key.to_string(), annotations }))
    }

    async fn decrypt(
        &self,
        request: Request<v2::DecryptRequest>,
    ) -> Result<Response<v2::DecryptResponse>, Status> {
        let hangs = {
            let mut state = self.state.lock();
            *state.calls.entry("decrypt").or_default() += 1;
            state.hangs
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        let request = request.into_inner();
        let key: u8 = request.key_id.parse().map_err(|_| Status::not_found("no such key"))?;
        if request.annotations.get("local.example.com").map(Vec::as_slice) != Some(b"note") {
            return Err(Status::invalid_argument("annotations are missing"));
        }
        Ok(Response::new(v2::DecryptResponse {
            plaintext: request.ciphertext.iter().map(|byte| byte ^ key).collect(),
        }))
    }
}

#[tokio::test]
async fn a_key_management_service_seals_once_a_key_and_opens_once_a_seed() {
    let (folder, tasks, fake) =
        (tempfile::tempdir().expect("folder"), coracle_daemon::Tasks::new(), FakeKms::default());
    fake.turn(1, false);
    let socket = fake.serve(folder.path(), &tasks);
    let provider =
        format!("kms: {{apiVersion: v2, name: vault, endpoint: 'unix://{}', timeout: 2s}}", socket.display());
    let started = || {
        let rules = Arc::new(rules(&secrets(std::slice::from_ref(&provider))).expect("rules"));
        let (service, stop) = (rules.services()[0].clone(), tasks.stopping());
        tasks.run("follow", async move {
            tokio::select! { () = service.follow(|| ()) => {} () = stop.cancelled() => {} }
        });
        rules
    };
    let one = started();
    let (first, second) = (sealed(&one, "a").await, sealed(&one, "b").await);
    assert!(first.starts_with(b"k8s:enc:kms:v2:vault:"));
    assert_eq!(opened(&one, &first).await, Ok(("a".to_owned(), false)));
    assert_eq!((fake.calls("encrypt"), fake.calls("decrypt")), (1, 0));
    // Another server asks once for the seed, and both values are its.
    fake.turn(2, false);
    let two = started();
    let third = sealed(&two, "c").await;
    for (stored, text, stale) in [(&first, "a", true), (&second, "b", true), (&third, "c", false)] {
        assert_eq!(opened(&two, stored).await, Ok((text.to_owned(), stale)));
    }
    assert_eq!((fake.calls("encrypt"), fake.calls("decrypt")), (2, 1));
    assert_eq!(two.services()[0].fault(), None);
    // A service that is not well still has a key.
    fake.turn(2, true);
    let three = started();
    let fourth = sealed(&three, "d").await;
    let fault = "kmsv2 Provider vault is not healthy, error: got unexpected healthz status: sick";
    assert_eq!(three.services()[0].fault().as_deref(), Some(fault));
    assert_eq!(opened(&three, &fourth).await, Ok(("d".to_owned(), false)));
    tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
}

#[tokio::test]
async fn nothing_is_sealed_with_another_key_than_the_service_names_or_with_none() {
    let zero = "sha256:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9";
    for (named, gen_told, sealed_with) in [
        ("1", "<nil>", zero),
        ("0", "failed to encrypt DEK, error: rpc error: code = Internal desc = no key", ""),
    ] {
        let (folder, tasks, fake) =
            (tempfile::tempdir().expect("folder"), coracle_daemon::Tasks::new(), FakeKms::default());
        {
            let mut state = fake.state.lock();
            (state.named, state.refuses) = (Some(named.to_owned()), sealed_with.is_empty());
        }
        let socket = fake.serve(folder.path(), &tasks);
        let provider =
            format!("kms: {{apiVersion: v2, name: vault, endpoint: 'unix://{}'}}", socket.display());
        let rules = Arc::new(rules(&secrets(&[provider])).expect("rules"));
        let (service, stop) = (rules.services()[0].clone(), tasks.stopping());
        tasks.run("follow", async move {
            tokio::select! { () = service.follow(|| ()) => {} () = stop.cancelled() => {} }
        });
        let chain = rules.of(&GroupResource::new("", "secrets")).expect("chain");
        assert_eq!(chain.seal(b"d", PATH).await, Err("got unexpected nil transformer".to_owned()));
        let fault = rules.services()[0].fault().expect("a fault");
        let told = format!(
            "useSeed=true, errState=got unexpected nil transformer, errGen={gen_told}, statusKeyIDHash="
        );
        assert!(fault.contains(&told), "{fault}");
        let told = format!(
            "encryptKeyIDHash={sealed_with:?}, stateKeyIDHash=\"\", expirationTimestamp=0001-01-01T00:00:00Z"
        );
        assert!(fault.ends_with(&told), "{fault}");
        tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
    }
}

#[tokio::test]
async fn a_service_that_never_answers_holds_up_a_list_once_and_is_read_again_when_it_answers() {
    let (folder, tasks, fake) =
        (tempfile::tempdir().expect("folder"), coracle_daemon::Tasks::new(), FakeKms::default());
    let socket = fake.serve(folder.path(), &tasks);
    let provider = format!(
        "kms: {{apiVersion: v2, name: vault, endpoint: 'unix://{}', timeout: 100ms}}",
        socket.display()
    );
    let (read_again, mut again) = tokio::sync::mpsc::unbounded_channel();
    let started = || {
        let rules = Arc::new(rules(&secrets(std::slice::from_ref(&provider))).expect("rules"));
        let (service, stop, read_again) = (rules.services()[0].clone(), tasks.stopping(), read_again.clone());
        tasks.run("follow", async move {
            let well = || read_again.send(()).expect("a reader");
            tokio::select! { () = service.follow(well) => {} () = stop.cancelled() => {} }
        });
        rules
    };
    let stored = sealed(&started(), "a").await;
    again.recv().await.expect("well");
    fake.state.lock().hangs = true;
    let reader = started();
    again.recv().await.expect("well");
    let chain = reader.of(&GroupResource::new("", "secrets")).expect("a chain");
    let answers = futures::future::join_all((0..500).map(|_| chain.open(&stored, PATH))).await;
    for answer in answers {
        assert!(answer.is_err_and(|why| why.contains("DeadlineExceeded")));
    }
    assert_eq!(fake.calls("decrypt"), 1, "one call for all");
    fake.state.lock().hangs = false;
    again.recv().await.expect("well again");
    assert_eq!(opened(&reader, &stored).await, Ok(("a".to_owned(), false)));
    tasks.stop_within(Duration::from_secs(5)).await.expect("stopped");
}

const CBC_256: &str = "000102030405060708090a0b0c0d0e0f85e57e9038df150facc12dc76dbf2efa";
const CBC_128: &str = "000102030405060708090a0b0c0d0e0faa7f0ff67908b60269edb10df4d0db71";
const GCM_256: &str = "000102030405060708090a0b2fd41a20a0cc7d6f45e514c3949d50f09fd785441fd1a269f9fef18f64cb";
const GCM_192: &str = "000102030405060708090a0b7c7ed79f9d4b6b283631ef7ce2a20a2784663558ee559eeeceeed1bf8b9c";
const SEEDED: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f000102030405060708090a0b567b0f832e20226e944c47331abf631e9dbd001fdd3d59b8c5ce21ea712e";
const BOX_NONCE: &str = "69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37";
const BOX: &str = "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5";
const BOX_PLAIN: &str = "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705";
