//! Writing a database from its first byte to its last, without going back: twice the same, once to learn where things will
//! be, and once to write them.

use super::page::{BUCKET, ELEMENT, HEADER, Header, IS_BUCKET, Meta, PAGE, kind};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The first page behind the meta pages: the list of free pages, which is empty.
const FREE: u64 = 2;
/// Longest value, as in bbolt.
const VALUE_MAX: usize = i32::MAX as usize - 2;
/// Longest key, as in bbolt.
const KEY_MAX: usize = 32768;

/// Where things are in a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    root: u64,
    pages: u64,
}

impl Layout {
    /// Bytes of the whole file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE as u64
    }
}

/// Learns the layout of what `fill` writes.
///
/// # Errors
/// Those of `fill`.
pub fn measure(fill: impl FnOnce(&mut Buckets<'_>) -> io::Result<()>) -> io::Result<Layout> {
    let mut nowhere = io::sink();
    let mut buckets = Buckets { out: &mut nowhere, next: FREE + 1, roots: BTreeMap::new() };
    fill(&mut buckets)?;
    buckets.finish()
}

/// Writes what `fill` writes, which must be the same as when `layout` was learned.
///
/// # Errors
/// Those of `fill` and `out`, or `layout` is another's.
pub fn write(
    layout: &Layout,
    out: &mut dyn Write,
    fill: impl FnOnce(&mut Buckets<'_>) -> io::Result<()>,
) -> io::Result<()> {
    for transaction in [0, 1] {
        let mut page = Vec::with_capacity(PAGE);
        Header { id: transaction, kind: kind::META, count: 0, overflow: 0 }.put(&mut page);
        let page_size = u32::try_from(PAGE).map_err(io::Error::other)?;
        Meta { page_size, root: layout.root, free: FREE, pages: layout.pages, transaction }.put(&mut page);
        write_page(out, page)?;
    }
    let mut page = Vec::with_capacity(PAGE);
    Header { id: FREE, kind: kind::FREE, count: 0, overflow: 0 }.put(&mut page);
    write_page(out, page)?;
    let mut buckets = Buckets { out, next: FREE + 1, roots: BTreeMap::new() };
    fill(&mut buckets)?;
    if buckets.finish()? != *layout {
        return Err(io::Error::other("the database changed while it was written"));
    }
    Ok(())
}

/// Fills up to whole pages.
fn write_page(out: &mut dyn Write, mut page: Vec<u8>) -> io::Result<()> {
    page.resize(page.len().next_multiple_of(PAGE), 0);
    out.write_all(&page)
}

/// The buckets of a database in the making.
pub struct Buckets<'a> {
    out: &'a mut dyn Write,
    next: u64,
    roots: BTreeMap<Vec<u8>, u64>,
}

impl Buckets<'_> {
    /// Adds the next bucket, with these pairs in the order of their keys.
    ///
    /// # Errors
    /// Keys are out of order or too long, or what is written to fails.
    pub fn bucket<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        name: &str,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> io::Result<()> {
        let mut tree = Tree::default();
        for (key, value) in pairs {
            tree.put(self, key.as_ref(), value.as_ref(), 0)?;
        }
        let root = tree.finish(self)?;
        self.roots.insert(name.as_bytes().to_vec(), root);
        Ok(())
    }

    fn finish(mut self) -> io::Result<Layout> {
        let mut tree = Tree::default();
        for (name, root) in std::mem::take(&mut self.roots) {
            let mut entry = [0; BUCKET];
            entry[..8].copy_from_slice(&root.to_le_bytes());
            tree.put(&mut self, &name, &entry, IS_BUCKET)?;
        }
        let root = tree.finish(&mut self)?;
        Ok(Layout { root, pages: self.next })
    }
}

/// A tree in the making: the last, unfinished page of each level, leaves first.
#[derive(Default)]
struct Tree {
    levels: Vec<Open>,
    last: Vec<u8>,
}

/// A page in the making.
#[derive(Default)]
struct Open {
    elements: Vec<Element>,
    /// Keys and values, one behind the other.
    data: Vec<u8>,
    first: Vec<u8>,
}

struct Element {
    key: usize,
    value: usize,
    /// Flags in a leaf, a page in a branch.
    number: u64,
}

impl Open {
    fn bytes(&self) -> usize {
        HEADER + ELEMENT * self.elements.len() + self.data.len()
    }

    fn push(&mut self, key: &[u8], value: &[u8], number: u64) {
        if self.elements.is_empty() {
            self.first = key.to_vec();
        }
        self.elements.push(Element { key: key.len(), value: value.len(), number });
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    /// Writes it as the next page, and leaves an empty one.
    fn close(&mut self, buckets: &mut Buckets<'_>, leaf: bool) -> io::Result<u64> {
        let id = buckets.next;
        let pages = self.bytes().div_ceil(PAGE);
        let mut page = Vec::with_capacity(pages * PAGE);
        Header {
            id,
            kind: if leaf { kind::LEAF } else { kind::BRANCH },
            count: u16::try_from(self.elements.len()).map_err(io::Error::other)?,
            overflow: u32::try_from(pages - 1).map_err(io::Error::other)?,
        }
        .put(&mut page);
        let mut put = |number: usize| -> io::Result<()> {
            page.extend_from_slice(&u32::try_from(number).map_err(io::Error::other)?.to_le_bytes());
            Ok(())
        };
        // Where an element's key is counts from the element itself.
        let mut place = ELEMENT * self.elements.len();
        for element in &self.elements {
            if leaf {
                put(usize::try_from(element.number).map_err(io::Error::other)?)?;
                put(place)?;
                put(element.key)?;
                put(element.value)?;
            } else {
                put(place)?;
                put(element.key)?;
                let (low, high) = (element.number & u64::from(u32::MAX), element.number >> 32);
                put(usize::try_from(low).map_err(io::Error::other)?)?;
                put(usize::try_from(high).map_err(io::Error::other)?)?;
            }
            place = place + element.key + element.value - ELEMENT;
        }
        page.extend_from_slice(&self.data);
        write_page(buckets.out, page)?;
        buckets.next += pages as u64;
        self.elements.clear();
        self.data.clear();
        Ok(id)
    }
}

impl Tree {
    fn put(&mut self, buckets: &mut Buckets<'_>, key: &[u8], value: &[u8], flags: u32) -> io::Result<()> {
        let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if key.is_empty() || key.len() > KEY_MAX || value.len() > VALUE_MAX {
            return wrong("a database takes no such key or value");
        }
        if key <= self.last.as_slice() {
            return wrong("a database takes keys in their order");
        }
        self.last.clear();
        self.last.extend_from_slice(key);
        self.add(buckets, 0, key, value, u64::from(flags))
    }

    fn add(
        &mut self,
        buckets: &mut Buckets<'_>,
        level: usize,
        key: &[u8],
        value: &[u8],
        number: u64,
    ) -> io::Result<()> {
        if self.levels.len() == level {
            self.levels.push(Open::default());
        }
        let open = &mut self.levels[level];
        // A branch to one page would need a branch to it, and so on, without end.
        let least = if level == 0 { 1 } else { 2 };
        if open.elements.len() >= least && open.bytes() + ELEMENT + key.len() + value.len() > PAGE {
            let id = open.close(buckets, level == 0)?;
            let first = std::mem::take(&mut open.first);
            self.add(buckets, level + 1, &first, &[], id)?;
        }
        self.levels[level].push(key, value, number);
        Ok(())
    }

    /// Closes what is open, and tells the root.
    fn finish(mut self, buckets: &mut Buckets<'_>) -> io::Result<u64> {
        if self.levels.is_empty() {
            return Open::default().close(buckets, true);
        }
        let mut level = 0;
        loop {
            let open = &mut self.levels[level];
            let first = std::mem::take(&mut open.first);
            let id = open.close(buckets, level == 0)?;
            if level + 1 == self.levels.len() {
                return Ok(id);
            }
            self.add(buckets, level + 1, &first, &[], id)?;
            level += 1;
        }
    }
}
