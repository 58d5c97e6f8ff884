//! What is written is read, and what is damaged is told and never believed too far.

use super::{BoltError, Database, measure, write};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Write;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

fn bytes(buckets: &BTreeMap<String, Pairs>) -> Vec<u8> {
    let fill = |out: &mut super::Buckets<'_>| {
        buckets.iter().try_for_each(|(name, pairs)| out.bucket(name, pairs.iter()))
    };
    let layout = measure(fill).expect("is measured");
    let mut bytes = Vec::new();
    write(&layout, &mut bytes, fill).expect("is written");
    assert_eq!(bytes.len() as u64, layout.bytes());
    bytes
}

fn open(bytes: &[u8]) -> Result<Database, BoltError> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("writes");
    Database::open(file, bytes.len() as u64)
}

fn read(database: &Database, bucket: &str) -> Result<Option<Pairs>, BoltError> {
    let mut pairs = Pairs::new();
    let there = database.each(bucket, &mut |key, value| {
        pairs.insert(key.to_vec(), value.to_vec());
        Ok::<_, BoltError>(())
    })?;
    Ok(there.then_some(pairs))
}

fn numbers(count: u32, value: usize) -> Pairs {
    (0..count).map(|n| (n.to_be_bytes().to_vec(), vec![7; value])).collect()
}

#[test]
fn trees_of_any_depth_and_values_beyond_a_page_come_back() {
    let buckets: BTreeMap<String, Pairs> = [
        ("deep", numbers(60_000, 20)),
        ("empty", Pairs::new()),
        ("large", numbers(3, 20_000)),
        ("long", (0..600).map(|n| (vec![n as u8; 9 * (n + 1)], vec![1])).collect()),
        ("small", numbers(1, 0)),
    ]
    .into_iter()
    .map(|(name, pairs)| (name.to_owned(), pairs))
    .collect();
    let database = open(&bytes(&buckets)).expect("opens");
    for (name, pairs) in &buckets {
        assert!(read(&database, name).expect("reads").as_ref() == Some(pairs), "{name}");
    }
    assert_eq!(read(&database, "none").expect("reads"), None);
}

#[test]
fn keys_out_of_order_are_refused() {
    let pairs = [(b"b", b""), (b"a", b"")];
    let refused = measure(|out| out.bucket("x", pairs)).expect_err("out of order");
    assert_eq!(refused.to_string(), "a database takes keys in their order");
    measure(|out| out.bucket("x", [(b"a", b""), (b"a", b"")])).expect_err("twice");
}

#[test]
fn the_second_meta_page_stands_in_for_a_damaged_first() {
    let buckets = [("x".to_owned(), numbers(9, 9))].into();
    let mut bytes = bytes(&buckets);
    bytes[20] ^= 1;
    assert_eq!(read(&open(&bytes).expect("opens"), "x").expect("reads"), Some(numbers(9, 9)));
    bytes[4096 + 20] ^= 1;
    assert!(matches!(open(&bytes), Err(BoltError::NoMeta)));
}

#[test]
fn a_file_that_ends_early_is_told() {
    let bytes = bytes(&[("x".to_owned(), numbers(999, 9))].into());
    let short = open(&bytes[..bytes.len() - 4096]).expect_err("is cut off").to_string();
    assert!(short.contains("pages of 4096"), "{short}");
    for length in [0, 15, 79, 512, 4096] {
        open(&bytes[..length]).expect_err("is cut off");
    }
}

#[test]
fn a_tree_that_leads_in_circles_ends() {
    let mut bytes = bytes(&[("x".to_owned(), numbers(9_000, 9))].into());
    let branch = (0..bytes.len() / 4096).map(|id| id * 4096).find(|at| bytes[at + 8] == 1).expect("a branch");
    let id: [u8; 8] = bytes[branch..branch + 8].try_into().expect("eight");
    bytes[branch + 24..branch + 32].copy_from_slice(&id);
    assert!(matches!(read(&open(&bytes).expect("opens"), "x"), Err(BoltError::Page(_))));
}

#[test]
fn a_branch_that_leads_to_one_long_page_again_and_again_ends() {
    let pairs: Pairs = numbers(9_000, 9).into_iter().chain([(vec![9; 9], vec![7; 1 << 20])]).collect();
    let mut bytes = bytes(&[("x".to_owned(), pairs)].into());
    let pages = bytes.len() / 4096;
    let kind = |bytes: &[u8], page: usize| bytes[page * 4096 + 8];
    let overflow = |bytes: &[u8], page: usize| bytes[page * 4096 + 12..page * 4096 + 16] != [0; 4];
    let branch = (2..pages).find(|page| kind(&bytes, *page) == 1).expect("a branch") * 4096;
    let long =
        (2..pages).find(|page| kind(&bytes, *page) == 2 && overflow(&bytes, *page)).expect("a long leaf");
    let children = usize::from(u16::from_le_bytes([bytes[branch + 10], bytes[branch + 11]]));
    for child in 0..children {
        let at = branch + 16 + 16 * child + 8;
        bytes[at..at + 8].copy_from_slice(&(long as u64).to_le_bytes());
    }
    bytes[long * 4096 + 10] = 0;
    let mut seen = 0;
    let ended = open(&bytes).expect("opens").each("x", &mut |_, _| {
        seen += 1;
        Ok::<_, BoltError>(())
    });
    assert!(children > 2 && matches!(ended, Err(BoltError::Page(_))), "{children} children: {ended:?}");
    assert_eq!(seen, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(
        buckets in proptest::collection::btree_map(
            "[a-z]{1,9}",
            proptest::collection::btree_map(
                proptest::collection::vec(any::<u8>(), 1..40),
                proptest::collection::vec(any::<u8>(), 0..6000),
                0..60,
            ),
            0..5,
        ),
    ) {
        let database = open(&bytes(&buckets)).expect("opens");
        for (name, pairs) in &buckets {
            let back = read(&database, name).expect("reads");
            prop_assert_eq!(back.as_ref(), Some(pairs));
        }
    }

    #[test]
    fn damage_is_told_or_does_no_harm(at in any::<prop::sample::Index>(), bit in 0u8..8, depth in 1u32..4000) {
        let buckets = [("x".to_owned(), numbers(depth, 9))].into();
        let mut bytes = bytes(&buckets);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(database) = open(&bytes) {
            // It neither panics nor goes on for ever.
            let _ = read(&database, "x");
        }
    }
}
