//! The parts of pages that writing and reading share.

/// Bytes of the pages that are written; those that are read may be of another size.
pub const PAGE: usize = 4096;
/// Bytes at the beginning of a page: number, kind, count of elements, and how many pages it overflows into.
pub const HEADER: usize = 16;
/// Bytes of what stands for each element before the keys and values.
pub const ELEMENT: usize = 16;
/// Bytes of a bucket's entry: the page of its root, and a number that etcd does not use.
pub const BUCKET: usize = 16;
/// Bytes of a meta page's content.
pub const META_CONTENT: usize = 64;
/// What a leaf's element has that is a bucket.
pub const IS_BUCKET: u32 = 1;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// The kinds of pages.
pub mod kind {
    pub const BRANCH: u16 = 0x01;
    pub const LEAF: u16 = 0x02;
    pub const META: u16 = 0x04;
    pub const FREE: u16 = 0x10;
}

/// The number at `at`; `None` past the end.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// As [`u16_at`].
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// As [`u16_at`].
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The beginning of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its own number.
    pub id: u64,
    /// One of [`kind`].
    pub kind: u16,
    /// Elements in it.
    pub count: u16,
    /// Pages behind it that belong to it.
    pub overflow: u32,
}

impl Header {
    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.kind.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.overflow.to_le_bytes());
    }

    /// From the first bytes of a page.
    pub fn take(page: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(page, 0)?,
            kind: u16_at(page, 8)?,
            count: u16_at(page, 10)?,
            overflow: u32_at(page, 12)?,
        })
    }
}

/// What a meta page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Bytes of a page.
    pub page_size: u32,
    /// The page of the root's tree.
    pub root: u64,
    /// The page that lists free pages.
    pub free: u64,
    /// How many pages there are.
    pub pages: u64,
    /// The transaction that wrote it.
    pub transaction: u64,
}

impl Meta {
    /// Appends its content.
    pub fn put(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        for word in [MAGIC, VERSION, self.page_size, 0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.root, 0, self.free, self.pages, self.transaction] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let sum = fnv1a(&out[begin..]);
        out.extend_from_slice(&sum.to_le_bytes());
    }

    /// From the content of a meta page, if its checksum fits.
    pub fn take(content: &[u8]) -> Option<Self> {
        let summed = content.get(..META_CONTENT - 8)?;
        let whole = u32_at(content, 0)? == MAGIC
            && u32_at(content, 4)? == VERSION
            && u64_at(content, META_CONTENT - 8)? == fnv1a(summed);
        whole.then_some(Self {
            page_size: u32_at(content, 8)?,
            root: u64_at(content, 16)?,
            free: u64_at(content, 32)?,
            pages: u64_at(content, 40)?,
            transaction: u64_at(content, 48)?,
        })
    }
}

/// FNV-1a of 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3))
}
