//! Numbers in files of other programs, which may end too early and lie about themselves.

/// The little-endian number of `N` bytes at `at`, at most eight.
pub(crate) fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(N)?)?;
    let value = field.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    usize::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_where_they_are_whole() {
        let bytes = [1, 2, 3, 4, 0, 0, 0, 0, 9];
        assert_eq!(number::<2>(&bytes, 1), Some(0x0302));
        assert_eq!(number::<8>(&bytes, 0), Some(0x0403_0201));
        assert_eq!(number::<4>(&bytes, 6), None);
        assert_eq!(number::<4>(&bytes, usize::MAX), None);
    }
}
