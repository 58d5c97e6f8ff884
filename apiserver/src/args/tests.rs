//! Every flag of kube-apiserver 1.33 (`flags.txt`: its name, and its default if it has one) is taken here, or refused with a
//! sentence; manifests as people write them start.

use super::*;
use clap::{CommandFactory, Parser};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

const THEIRS: &str = include_str!("flags.txt");

/// Defaults that differ, and why.
const OTHERWISE: &[(&str, &str)] = &[
    ("authorization-mode", "nobody may do anything that no role allows"),
    ("bind-address", "nothing listens beyond this machine unless the cluster is told of an address"),
    ("requestheader-extra-headers-prefix", "whoever names a CA of front proxies believes them"),
    ("requestheader-group-headers", "likewise"),
    ("requestheader-username-headers", "likewise"),
    ("service-account-issuer", "tokens have an issuer"),
    ("service-cluster-ip-range", "Services have addresses"),
    ("storage-media-type", "objects are stored as JSON"),
];

/// How a default is written does not matter.
fn plain(text: &str) -> String {
    let text = text.to_lowercase();
    match text.as_str() {
        "0s" | "0" | "false" | "0.0" => String::new(),
        _ => text,
    }
}

fn has(own: &clap::Arg, name: &str) -> bool {
    own.get_long() == Some(name) || own.get_all_aliases().is_some_and(|all| all.contains(&name))
}

#[test]
fn every_flag_of_kube_apiserver_is_taken_or_refused_and_has_its_default() {
    let command = Cli::command();
    let (mut taken, mut idle, mut refused, mut missing) = (0, 0, 0, Vec::new());
    for line in THEIRS.lines() {
        let (name, default) = line.split_once(' ').unwrap_or((line, ""));
        let Some(own) = command.get_arguments().find(|own| has(own, name)) else {
            missing.push(name);
            continue;
        };
        match () {
            () if beyond::refuses(name) => refused += 1,
            () if beyond::has(name) => idle += 1,
            () => taken += 1,
        }
        let values: Vec<_> = own.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let differs = plain(&values.join(",")) != plain(default) && !beyond::has(name);
        let told = OTHERWISE.iter().any(|(other, _)| *other == name);
        assert_eq!(differs, told && !beyond::has(name), "--{name}: {values:?}, not {default:?}");
    }
    assert_eq!(missing, Vec::<&str>::new());
    // How far it is: what does as there, what changes nothing here, what is refused.
    assert_eq!((taken, idle, refused), (119, 35, 16));
}

/// As kubeadm, kind, k3s, kubespray and envtest start a kube-apiserver, one flag a line.
const MANIFESTS: [(&str, &str); 4] = [
    ("kubeadm and kind", include_str!("manifests/kubeadm.txt")),
    ("k3s", include_str!("manifests/k3s.txt")),
    ("kubespray with a benchmark of the CIS", include_str!("manifests/kubespray.txt")),
    ("envtest", include_str!("manifests/envtest.txt")),
];

#[test]
fn manifests_of_others_start_this_server() {
    for (whose, flags) in MANIFESTS {
        let read = Cli::try_parse_from(std::iter::once("x").chain(flags.lines()));
        let args = read.map(|cli| cli.args).unwrap_or_else(|error| panic!("{whose}: {error}"));
        assert!(args.allow_privileged, "{whose}");
        assert!(gates::check(&args.feature_gates).is_ok(), "{whose}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_with_a_sentence() {
    let base = ["x", "--etcd-servers=http://x"];
    let told = |flag: &str| {
        let read = Cli::try_parse_from(base.into_iter().chain([flag]));
        read.err().map(|error| error.to_string()).unwrap_or_default()
    };
    for (flag, want) in [
        ("--egress-selector-config-file=x", "nodes, pods and webhooks are reached directly"),
        ("--watch-cache=false", "lists and watches are always served from the cache"),
        ("--storage-media-type=application/yaml", "objects are stored as JSON"),
        ("--apiserver-count=x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("--service-cluster-ip-range=10.96.0.0/16,fd00::/108", "name one range of IPv4"),
        ("--service-cluster-ip-range=x", "service-cluster-ip-range[0] is not a valid cidr"),
        ("--profiling=maybe", "strconv.ParseBool: parsing \"maybe\": invalid syntax"),
        ("--etcd-count-metric-poll-period=x", "is no duration"),
    ] {
        assert!(told(flag).contains(want), "{flag}: {}", told(flag));
    }
    for flag in [
        "--egress-selector-config-file=",
        "--watch-cache=True",
        "--watch-cache",
        "--enable-logs-handler=false",
        "--emulated-version=1.33",
        "--etcd-count-metric-poll-period=0",
        "--contention-profiling",
    ] {
        assert_eq!(told(flag), "");
    }
}

#[test]
fn the_last_of_a_flag_counts_and_lists_add_up() {
    let flags = [
        "x",
        "--etcd-servers=http://a,http://b",
        "--etcd-servers=http://c",
        "--secure-port=1",
        "--secure-port=2",
        "--anonymous-auth=False",
        "-v=4",
    ];
    let args = Cli::try_parse_from(flags).expect("flags").args;
    assert_eq!((args.etcd_servers.len(), args.secure_port, args.v), (3, 2, Some(4)));
    assert!(!args.authentication.anonymous_auth);
    assert_eq!(args.bound(), [IpAddr::from([127, 0, 0, 1])]);
    let told = Cli::try_parse_from([
        "x",
        "--etcd-servers=x",
        "--advertise-address=10.0.0.1",
        "--external-hostname=api",
    ]);
    let told = told.expect("flags").args;
    assert_eq!((told.bound(), told.external()), (vec![IpAddr::from([0, 0, 0, 0])], "api:6443".to_owned()));
}
