//! Reading a database that anyone may have written, whole or not.

use super::page::{BUCKET, ELEMENT, HEADER, Header, IS_BUCKET, META_CONTENT, Meta, kind, u32_at, u64_at};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Sizes that pages may have.
const PAGE_SIZES: [u32; 8] = [4096, 512, 1024, 2048, 8192, 16384, 32768, 65536];
/// Deepest tree that is believed: one with two keys a page has as many pages as a number can count.
const DEPTH_MAX: usize = 64;

/// Why a file is no database that can be read.
#[derive(Debug, thiserror::Error)]
pub enum BoltError {
    /// The disk fails.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// Neither of the first two pages is what it must be.
    #[error("it has no meta page of a bbolt database")]
    NoMeta,
    /// It was cut off.
    #[error("it has {length} bytes, but {pages} pages of {page_size}")]
    Short {
        /// Bytes that are there.
        length: u64,
        /// Pages that should be.
        pages: u64,
        /// Bytes of one.
        page_size: u32,
    },
    /// A page is not what leads to it says.
    #[error("page {0} is damaged")]
    Page(u64),
}

/// What is shown keys and values.
pub type Visit<'a, E> = dyn FnMut(&[u8], &[u8]) -> Result<(), E> + 'a;

/// A database in a file.
#[derive(Debug)]
pub struct Database {
    file: File,
    meta: Meta,
}

/// Where a tree begins.
#[derive(Debug)]
enum Root {
    /// On a page of its own.
    Page(u64),
    /// In the bucket's entry: a small bucket is a page without a number.
    Inline(Vec<u8>),
}

impl Database {
    /// Opens what is in the first `length` bytes of `file`.
    ///
    /// # Errors
    /// It is no database, or cut off.
    pub fn open(file: File, length: u64) -> Result<Self, BoltError> {
        let mut begin = vec![0; usize::try_from(length.min(128 << 10)).unwrap_or_default()];
        file.read_exact_at(&mut begin, 0)?;
        let at = |offset: usize| {
            let content = begin.get(offset + HEADER..)?.get(..META_CONTENT)?;
            Meta::take(content)
        };
        let first = at(0);
        // Whoever wrote the second meta page last may have damaged the first.
        let sizes = first.map_or(PAGE_SIZES.to_vec(), |meta| vec![meta.page_size]);
        let second = sizes.iter().find_map(|size| at(*size as usize).filter(|meta| meta.page_size == *size));
        let meta = first.into_iter().chain(second).max_by_key(|meta| meta.transaction);
        let meta = meta.filter(|meta| PAGE_SIZES.contains(&meta.page_size)).ok_or(BoltError::NoMeta)?;
        let (pages, page_size) = (meta.pages, meta.page_size);
        if pages.checked_mul(u64::from(page_size)).is_none_or(|wanted| wanted > length) {
            return Err(BoltError::Short { length, pages, page_size });
        }
        Ok(Self { file, meta })
    }

    /// A page with what it overflows into.
    fn page(&self, id: u64) -> Result<Vec<u8>, BoltError> {
        let size = u64::from(self.meta.page_size);
        if id < 2 || id >= self.meta.pages {
            return Err(BoltError::Page(id));
        }
        let mut page = vec![0; self.meta.page_size as usize];
        self.file.read_exact_at(&mut page, id * size)?;
        let header = Header::take(&page).filter(|header| header.id == id).ok_or(BoltError::Page(id))?;
        if header.overflow > 0 {
            let pages = 1 + u64::from(header.overflow);
            if pages > self.meta.pages - id {
                return Err(BoltError::Page(id));
            }
            // It is no longer than the file.
            page.resize(usize::try_from(pages * size).map_err(|_| BoltError::Page(id))?, 0);
            self.file.read_exact_at(&mut page, id * size)?;
        }
        Ok(page)
    }

    /// Shows all pairs of a bucket, in order, or none if there is no such bucket. Tells whether there is.
    ///
    /// # Errors
    /// The file is damaged, or `visit` fails.
    pub fn each<E: From<BoltError>>(&self, bucket: &str, visit: &mut Visit<'_, E>) -> Result<bool, E> {
        let mut found = None;
        let mut walk = Walk::new(self, true);
        walk.tree(&Root::Page(self.meta.root), &mut |name, entry| {
            if name == bucket.as_bytes() {
                found = Some(entry.to_vec());
            }
            Ok::<_, E>(())
        })?;
        let Some(entry) = found else { return Ok(false) };
        let damaged = || E::from(BoltError::Page(self.meta.root));
        let root = match u64_at(&entry, 0).ok_or_else(damaged)? {
            0 => Root::Inline(entry.get(BUCKET..).ok_or_else(damaged)?.to_vec()),
            id => Root::Page(id),
        };
        Walk::new(self, false).tree(&root, visit)?;
        Ok(true)
    }
}

/// A way through a tree.
struct Walk<'a> {
    database: &'a Database,
    /// Whether its leaves hold buckets.
    buckets: bool,
    /// Pages that may still be read; a tree that goes in circles has more.
    left: u64,
    last: Option<Vec<u8>>,
}

impl<'a> Walk<'a> {
    fn new(database: &'a Database, buckets: bool) -> Self {
        Self { database, buckets, left: database.meta.pages, last: None }
    }

    fn tree<E: From<BoltError>>(&mut self, root: &Root, visit: &mut Visit<'_, E>) -> Result<(), E> {
        match root {
            Root::Page(id) => self.page(*id, DEPTH_MAX, visit),
            Root::Inline(page) => {
                let is_leaf = Header::take(page).is_some_and(|header| header.kind == kind::LEAF);
                if is_leaf { self.leaf(0, page, visit) } else { Err(BoltError::Page(0).into()) }
            }
        }
    }

    fn page<E: From<BoltError>>(&mut self, id: u64, depth: usize, visit: &mut Visit<'_, E>) -> Result<(), E> {
        let damaged = || E::from(BoltError::Page(id));
        let depth = depth.checked_sub(1).ok_or_else(damaged)?;
        let page = self.database.page(id)?;
        let header = Header::take(&page).ok_or_else(damaged)?;
        // With those that it overflows into: else each of many could be the whole file.
        self.left = self.left.checked_sub(1 + u64::from(header.overflow)).ok_or_else(damaged)?;
        match header.kind {
            kind::LEAF => self.leaf(id, &page, visit),
            kind::BRANCH if header.count > 0 => {
                for number in 0..usize::from(header.count) {
                    let at = HEADER + ELEMENT * number;
                    let child = u64_at(&page, at + 8).ok_or_else(damaged)?;
                    self.page(child, depth, visit)?;
                }
                Ok(())
            }
            _ => Err(damaged()),
        }
    }

    fn leaf<E: From<BoltError>>(&mut self, id: u64, page: &[u8], visit: &mut Visit<'_, E>) -> Result<(), E> {
        let damaged = || E::from(BoltError::Page(id));
        let count = Header::take(page).ok_or_else(damaged)?.count;
        for number in 0..usize::from(count) {
            let (is_bucket, key, value) = element(page, number).ok_or_else(damaged)?;
            if is_bucket != self.buckets || self.last.as_deref().is_some_and(|last| key <= last) {
                return Err(damaged());
            }
            visit(key, value)?;
            let last = self.last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key);
        }
        Ok(())
    }
}

/// Whether a leaf's element is a bucket, its key and its value.
fn element(page: &[u8], number: usize) -> Option<(bool, &[u8], &[u8])> {
    let at = HEADER + ELEMENT * number;
    let length = |at| u32_at(page, at).and_then(|length| usize::try_from(length).ok());
    let flags = u32_at(page, at)?;
    let rest = page.get(at.checked_add(length(at + 4)?)?..)?;
    let (key, rest) = rest.split_at_checked(length(at + 8)?)?;
    let value = rest.get(..length(at + 12)?)?;
    Some((flags & IS_BUCKET != 0, key, value))
}
