//! Requests at the gate: which run, which wait, which are sent away.

use super::*;
use serde_json::json;

fn gate(queues: &Value) -> FlowControl {
    let gate = FlowControl::new(2, Duration::from_secs(60), &mut Registry::default());
    let level = json!({"metadata": {"name": "l", "uid": "L"}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": 1, "limitResponse": queues}}});
    let schema = json!({"metadata": {"name": "s", "uid": "S"}, "spec": {"matchingPrecedence": 1,
        "priorityLevelConfiguration": {"name": "l"}, "rules": [{"subjects": [{"kind": "User", "user": {"name": "*"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true}]}]}});
    gate.configure(&[Arc::new(schema)], &[Arc::new(level)]);
    gate
}

fn question() -> (UserInfo, RequestInfo) {
    let info = RequestInfo {
        is_resource: true,
        verb: "get".to_owned(),
        resource: "nodes".to_owned(),
        ..RequestInfo::default()
    };
    (UserInfo { name: "joe".to_owned(), ..UserInfo::default() }, info)
}

#[tokio::test]
async fn too_many_requests_are_sent_away_and_seats_come_back() {
    let gate = gate(&json!({"type": "Reject"}));
    let (user, info) = question();
    let first = gate.admit(&user, &info, 1).await.ok().expect("runs");
    let second = gate.admit(&user, &info, 1).await.ok().expect("runs");
    assert_eq!(gate.running(), [2, 0]);
    let told = gate.admit(&user, &info, 1).await.err().flatten().expect("is sent away");
    assert_eq!((told.schema_uid, told.level_uid), (header("S"), header("L")));
    drop(first);
    assert!(gate.admit(&user, &info, 1).await.is_ok());
    drop(second);
    assert_eq!(gate.running(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_their_turn_or_give_up() {
    let gate =
        gate(&json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 2}}));
    let (user, info) = question();
    let running = [gate.admit(&user, &info, 1).await.ok(), gate.admit(&user, &info, 1).await.ok()];
    let waits = gate.admit(&user, &info, 1);
    tokio::pin!(waits);
    assert!(futures::poll!(waits.as_mut()).is_pending());
    // One that gives up leaves nothing behind.
    {
        let gone = gate.admit(&user, &info, 1);
        tokio::pin!(gone);
        assert!(futures::poll!(gone.as_mut()).is_pending());
        assert!(gate.admit(&user, &info, 1).await.is_err());
    }
    drop(running);
    let permit = waits.await.ok().expect("its turn came");
    let other = gate.admit(&user, &info, 1).await.ok().expect("runs");
    assert!(gate.admit(&user, &info, 1).await.is_err(), "waited too long");
    drop((permit, other));
    assert!(gate.state.lock().turns.is_empty());
    assert_eq!(gate.state.lock().queues.usage()[0].used, 0);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_lent_seats_though_nothing_else_comes_or_ends() {
    let gate = FlowControl::new(40, Duration::from_secs(240), &mut Registry::default());
    let level = |name: &str, response: Value| {
        Arc::new(json!({"metadata": {"name": name, "uid": name}, "spec": {"type": "Limited",
            "limited": {"nominalConcurrencyShares": 20, "lendablePercent": 100, "limitResponse": response}}}))
    };
    let schema = |name: &str, user: &str| {
        Arc::new(json!({"metadata": {"name": name, "uid": name}, "spec": {"matchingPrecedence": 1,
            "priorityLevelConfiguration": {"name": name}, "rules": [{"subjects": [{"kind": "User", "user": {"name": user}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true}]}]}}))
    };
    let queues = json!({"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 50}});
    gate.configure(
        &[schema("busy", "joe"), schema("idle", "ann")],
        &[level("busy", queues), level("idle", json!({"type": "Reject"}))],
    );
    let (user, info) = question();
    let mut running = Vec::new();
    for _ in 0..20 {
        running.push(gate.admit(&user, &info, 1).await.ok().expect("its own seats"));
    }
    let began = Instant::now();
    let waits = gate.admit(&user, &info, 1);
    tokio::pin!(waits);
    assert!(futures::poll!(waits.as_mut()).is_pending());
    let rows = gate.dump_requests(true);
    let told: Vec<&str> = rows.lines().nth(1).expect("a row").split(',').map(str::trim).collect();
    assert_eq!(told[..5], ["busy", "busy", "0", "0", ""]);
    assert_eq!(told[9..], ["joe", "get", "", "", "", "", "nodes", ""]);
    let levels = gate.dump_levels();
    let busy = levels.lines().find(|row| row.starts_with("busy")).expect("a row");
    let cells: Vec<&str> = busy.split(',').map(str::trim).collect();
    assert_eq!(cells[1..], ["1", "false", "false", "1", "20", "20", "0", "0", "0"]);
    assert!(gate.dump_queues().lines().nth(1).expect("a row").starts_with("busy,"));
    assert!(waits.await.is_ok());
    assert!(began.elapsed() <= Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn lists_take_seats_by_what_they_look_at() {
    let rows = [
        ("get", 5000, None, 1),
        ("list", 50, None, 1),
        ("list", 950, None, 10),
        ("list", 90_000, None, 10),
        ("list", 90_000, Some(250), 3),
    ];
    for (verb, stored, limit, want) in rows {
        assert_eq!(seats(verb, stored, limit), want, "{verb} {stored} {limit:?}");
    }
}

#[tokio::test]
async fn without_fairness_only_numbers_count_and_those_who_may_do_everything_are_answered() {
    let gate = FlowControl::new(2, Duration::from_secs(60), &mut Registry::default()).bounded(Some([1, 0]));
    let (user, info) = question();
    let as_verb = |verb: &str| RequestInfo { verb: verb.to_owned(), ..info.clone() };
    let master = UserInfo { groups: vec!["system:masters".to_owned()], ..user.clone() };
    let running = gate.admit(&user, &info, 1).await.ok().expect("runs");
    assert!(running.told().is_none());
    for (user, verb, runs) in [
        (&user, "get", false),
        (&user, "list", false),
        (&user, "watch", true),
        (&user, "create", true),
        (&master, "get", true),
    ] {
        assert_eq!(gate.admit(user, &as_verb(verb), 1).await.is_ok(), runs, "{verb}");
    }
    drop(running);
    assert!(gate.admit(&user, &info, 1).await.is_ok());
}
