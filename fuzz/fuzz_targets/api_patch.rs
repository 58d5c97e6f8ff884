//! Patches of all three kinds. The object and the patch stand in the input, with a NUL between them.
#![no_main]

use coracle_api::{decode, kinds, patch};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [place, how, rest @ ..] = data else { return };
    let Some(at) = rest.iter().position(|byte| *byte == 0) else { return };
    let (object, patch) = (&rest[..at], &rest[at + 1..]);
    let Ok(object) = decode::document_of_json(object) else { return };
    let all = kinds::builtin();
    let kind = &all[usize::from(*place) % all.len()];
    let patched = match how % 3 {
        0 => patch::json_patch(&object, patch),
        1 => patch::merge_patch(&object, patch),
        _ => patch::strategic(&object, patch, kind),
    };
    if let Ok(patched) = patched {
        let _ = decode::canonical(patched.object, kind);
    }
});
