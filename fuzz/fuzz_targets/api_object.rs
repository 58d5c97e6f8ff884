//! Bodies of every kind, in JSON and YAML: decoded, defaulted, prepared, validated, shown as a table, and encoded.
#![no_main]

use coracle_api::{decode, defaults, kinds, protobuf, strategy, table, validate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [place, yaml, body @ ..] = data else { return };
    let all = kinds::builtin();
    let kind = &all[usize::from(*place) % all.len()];
    let _ = decode::any(body);
    let _ = decode::document(body);
    let decoded = if yaml % 2 == 0 { decode::json(body, kind) } else { decode::yaml(body, kind) };
    let Ok(decoded) = decoded else { return };
    let again = decode::canonical(decoded.object.clone(), kind).expect("canonical already");
    assert_eq!(again.object, decoded.object);
    let mut object = decoded.object;
    let _ = protobuf::encode(&object);
    defaults::apply(&mut object, kind);
    let mut twice = object.clone();
    defaults::apply(&mut twice, kind);
    assert_eq!(twice, object, "defaults of defaults");
    strategy::prepare_create(&mut object, kind);
    let _ = validate::create(&object, kind, validate::Policy::default());
    let _ = validate::warnings(&object, None, kind);
    let cells = table::cells(kind, &object, jiff::Timestamp::UNIX_EPOCH);
    // Upstream shows a cell more than columns of some kinds.
    assert!(Some(cells.len()) >= table::columns(kind).as_array().map(Vec::len));
    let mut updated = object.clone();
    for sub in ["", "status", "scale", "resize", "ephemeralcontainers", "approval", "finalize"] {
        strategy::prepare_update(&mut updated, &object, kind, sub);
        let _ = validate::update(&updated, &object, kind, sub, validate::Policy::default(), &mut Vec::new());
    }
});
