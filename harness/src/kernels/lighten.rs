//! What a kernel does for a module that is loaded, and a guest need not: it is taken out of the file beforehand. What
//! the module does stays as it is.

use crate::bytes::number;

/// Takes out what costs a guest time and tells a case nothing. What is no module is left alone.
pub(super) fn lighten(module: &mut Vec<u8>) {
    unsign(module);
    // A file that is cut short or that lies about itself is the kernel's to refuse.
    let _ = untrace(module);
}

/// Takes the signature away, which no kernel of the archive insists on: under emulation it takes half a
/// second to check those of KVM.
fn unsign(module: &mut Vec<u8>) {
    const MAGIC: &[u8] = b"~Module signature appended~\n";
    // `struct module_signature`, which ends with the signature's length.
    const HEAD: usize = 12;
    let Some(size) = module.strip_suffix(MAGIC).and_then(<[u8]>::last_chunk) else { return };
    let cut = usize::try_from(u32::from_be_bytes(*size))
        .unwrap_or(usize::MAX)
        .saturating_add(HEAD + MAGIC.len());
    if let Some(len) = module.len().checked_sub(cut) {
        module.truncate(len);
    }
}

/// Hides the list of functions that can be traced, each of which ftrace would patch when the module comes: the 1,500
/// of KVM take a guest a quarter of a second. Nobody traces there.
///
/// The kernel finds the list by the name of its section, so it gets another one: the same without its first letter,
/// which needs no room. `None` if this is not an ELF file of 64 bits, little-endian, with names for its sections.
fn untrace(module: &mut [u8]) -> Option<()> {
    const LIST: &[u8] = b"__mcount_loc\0";
    if !module.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    // Of `Elf64_Ehdr`: e_shoff, e_shentsize, e_shnum, e_shstrndx; of `Elf64_Shdr`: sh_name, sh_offset.
    let (table, size) = (number::<8>(module, 40)?, number::<2>(module, 58)?);
    let (count, names) = (number::<2>(module, 60)?, number::<2>(module, 62)?);
    let head = |section: usize| table.checked_add(section.checked_mul(size)?);
    let texts = number::<8>(module, head(names)?.checked_add(24)?)?;
    for section in 0..count {
        let at = head(section)?;
        let name = number::<4>(module, at)?;
        if module.get(texts.checked_add(name)?..)?.starts_with(LIST) {
            let next = u32::try_from(name + 1).ok()?;
            module.get_mut(at..at.checked_add(4)?)?.copy_from_slice(&next.to_le_bytes());
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(b"code", b"code")]
    #[case(
        b"codesig\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\0\0\0\x03~Module signature appended~\n",
        b"code"
    )]
    #[case(b"\0\0\0\xff~Module signature appended~\n", b"\0\0\0\xff~Module signature appended~\n")]
    fn signatures_are_cut_off(#[case] module: &[u8], #[case] left: &[u8]) {
        let mut module = module.to_vec();
        lighten(&mut module);
        assert_eq!(module, left);
    }

    /// A module with sections of these names, the last of which holds the names.
    fn elf(names: &[&str]) -> Vec<u8> {
        let mut module = vec![0; 64];
        module[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let count = u8::try_from(names.len()).expect("a few");
        (module[40], module[58], module[60], module[62]) = (64, 64, count, count - 1);
        let texts = 64 + 64 * names.len();
        let mut text = Vec::new();
        for name in names {
            let mut head = [0; 64];
            head[0] = u8::try_from(text.len()).expect("short names");
            head[24..32].copy_from_slice(&texts.to_le_bytes());
            module.extend(head);
            text.extend(name.bytes().chain([0]));
        }
        module.extend(text);
        module
    }

    /// The names of its sections, as a kernel finds them.
    fn names(module: &[u8]) -> Vec<String> {
        let head = |n: usize| 64 + 64 * n;
        let count = module[60].into();
        let texts = number::<8>(module, head(count - 1) + 24).expect("a place");
        let text = |n| &module[texts + number::<4>(module, head(n)).expect("a name")..];
        let name = |n| text(n).split(|b| *b == 0).next().expect("an end").to_vec();
        (0..count).map(|n| String::from_utf8(name(n)).expect("text")).collect()
    }

    #[test]
    fn the_list_for_tracing_has_another_name() {
        let before =
            elf(&[".text", "__mcount_loc", ".rela__mcount_loc", "__mcount_locs", ".names"]);
        let mut module = before.clone();
        lighten(&mut module);
        let expected = [".text", "_mcount_loc", ".rela__mcount_loc", "__mcount_locs", ".names"];
        assert_eq!(names(&module), expected);
        assert_eq!(module.iter().zip(&before).filter(|(now, was)| now != was).count(), 1);
    }

    #[rstest]
    #[case::table_outside(40, &[0xff; 8])]
    #[case::names_outside(64 + 64 + 24, &[0xff; 8])]
    #[case::name_outside(64, &[0xff; 4])]
    #[case::too_many(60, &[0xff; 2])]
    #[case::no_such_names(62, &[0xff; 2])]
    #[case::other_bits(4, &[1])]
    fn what_lies_about_itself_is_left_to_the_kernel(#[case] at: usize, #[case] bytes: &[u8]) {
        let mut module = elf(&["__mcount_loc", ".names"]);
        module[at..at + bytes.len()].copy_from_slice(bytes);
        let len = module.len();
        lighten(&mut module);
        assert_eq!(module.len(), len);
        for cut in 0..len {
            lighten(&mut module[..cut].to_vec());
        }
    }
}
