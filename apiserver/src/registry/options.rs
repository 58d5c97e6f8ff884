//! The query of a write, checked: dryRun, fieldManager, fieldValidation, force.

use super::Call;
use coracle_api::status::{FieldError, GroupResource, Status};
use serde_json::{Value, json};

const META: &str = "meta.k8s.io";
const MANAGER_MAX: usize = 128;

/// What to do about unknown and duplicate fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Nothing.
    Ignore,
    /// Tell.
    Warn,
    /// Refuse.
    Strict,
}

/// Options of a create, update or patch.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Do everything but write.
    pub dry_run: bool,
    /// Who owns the written fields.
    pub manager: String,
    /// See [`FieldValidation`].
    pub validation: FieldValidation,
    /// Apply: take ownership on conflict.
    pub force: bool,
    /// The options as admission is shown them.
    pub sent: Value,
}

impl WriteOptions {
    /// Those of the server's own writes.
    #[must_use]
    pub fn of_server() -> Self {
        Self {
            dry_run: false,
            manager: crate::reader::SERVER.to_owned(),
            validation: FieldValidation::Ignore,
            force: false,
            sent: Value::Null,
        }
    }

    /// Reads those of `call`; `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    ///
    /// # Errors
    /// 422 that names the option.
    pub fn read(call: &Call, kind: &str, applies: bool) -> Result<Self, Status> {
        let mut faults = Vec::new();
        let dry_run = dry_run(
            call.query.iter().filter(|(key, _)| key == "dryRun").map(|(_, v)| v.as_str()),
            &mut faults,
        );
        let manager = call.query("fieldManager").to_owned();
        if manager.chars().count() > MANAGER_MAX {
            faults.push(FieldError::too_long("fieldManager", 128));
        } else if let Some((at, found)) = manager.char_indices().find(|(_, c)| c.is_control()) {
            faults.push(FieldError::invalid(
                "fieldManager",
                &json!(manager),
                format!("invalid character {} (at position {at})", go_rune(found)),
            ));
        }
        if kind == "PatchOptions" {
            if applies && manager.is_empty() {
                faults.push(FieldError::required("fieldManager", "is required for apply patch"));
            }
            if !applies && !call.query("force").is_empty() {
                faults.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
            }
        }
        let validation = match call.query("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                faults.push(FieldError::not_supported(
                    "fieldValidation",
                    &json!(other),
                    &["", "Ignore", "Strict", "Warn"],
                ));
                FieldValidation::Warn
            }
        };
        if !faults.is_empty() {
            return Err(Status::invalid(&GroupResource::new(META, kind), "", &faults));
        }
        let mut sent = json!({"kind": kind, "apiVersion": format!("{META}/v1")});
        if dry_run {
            sent["dryRun"] = json!(["All"]);
        }
        for key in ["fieldManager", "fieldValidation"] {
            if !call.query(key).is_empty() {
                sent[key] = json!(call.query(key));
            }
        }
        let manager = if !manager.is_empty() { manager } else { agent(&call.user_agent) };
        Ok(Self { dry_run, manager, validation, force: call.flag("force"), sent })
    }
}

/// Go's `%#U` of a character that cannot be printed.
fn go_rune(c: char) -> String {
    format!("U+{:04X}", u32::from(c))
}

/// Whether nothing is to be written.
pub fn dry_run<'a>(values: impl Iterator<Item = &'a str>, faults: &mut Vec<FieldError>) -> bool {
    let mut dry = false;
    for value in values {
        dry |= value == "All";
        if value != "All" {
            faults.push(FieldError::not_supported("dryRun", &json!([value]), &["All"]));
        }
    }
    dry
}

/// The manager's name of clients that give none: the program of their user agent.
fn agent(user_agent: &str) -> String {
    let program = user_agent.split('/').next().unwrap_or_default();
    let printable = program.chars().filter(|c| !c.is_control());
    let name: String = printable.take(MANAGER_MAX).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}
