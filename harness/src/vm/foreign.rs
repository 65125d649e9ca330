//! What must hold of any bytes that a guest writes, or that are booted.

use super::console::Console;
use super::frame::{Damage, Decoder, Item, Message, encode, frame};
use super::image::unpacked;
use super::plan::Plan;
use crate::foreign::{Held, must, plain, same};
use uffd_results::is_plain;

/// A kernel's compression by the bytes that it begins with.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const LZ4: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// Frames are the same in whatever pieces they come, no byte goes missing, and a message is what its own
/// frame gives again. A line of the bytes is looked at as a message's text too, in a sound frame.
pub(crate) fn frames(bytes: &[u8]) -> Held {
    let items = decode(bytes, bytes.len().max(1));
    let size = usize::from(bytes.first().copied().unwrap_or(1) % 7) + 1;
    same("frames in pieces", &without_noise(&decode(bytes, size)), &without_noise(&items))?;
    let noise = |items: &[Item]| -> usize {
        items.iter().map(|item| if let Item::Noise(n) = item { *n } else { 0 }).sum()
    };
    must(noise(&items) <= bytes.len(), || "more noise than bytes".to_owned())?;
    let mut taken = false;
    for message in items.iter().filter_map(message) {
        taken = true;
        again(message)?;
    }
    for line in bytes.split(|b| *b == b'\n' || *b == 1) {
        match &decode(&frame(0, line), usize::MAX)[..] {
            [Item::Message(message)] => {
                taken = true;
                again(message)?;
            }
            [Item::Damage(Damage::Payload(0, _) | Damage::CutShort(_))]
            | [Item::Damage(Damage::CutShort(_)), Item::Noise(_)] => {}
            other => return Err(format!("a sound frame gives {other:?}")),
        }
    }
    if let Ok(plan) = Plan::parse(&String::from_utf8_lossy(bytes)) {
        taken |= !plan.cases.is_empty();
        same("a plan", &Plan::parse(&plan.to_text()).as_ref(), &Ok(&plan))?;
    }
    Ok(taken)
}

fn decode(bytes: &[u8], size: usize) -> Vec<Item> {
    let (mut decoder, mut items) = (Decoder::default(), Vec::new());
    bytes.chunks(size).for_each(|piece| decoder.feed(piece, &mut items));
    decoder.finish(&mut items);
    items
}

fn message(item: &Item) -> Option<&Message> {
    if let Item::Message(message) = item { Some(message) } else { None }
}

fn without_noise(items: &[Item]) -> Vec<&Item> {
    items.iter().filter(|item| !matches!(item, Item::Noise(_))).collect()
}

/// Its own frame gives a message again, if it fits in one.
fn again(message: &Message) -> Result<(), String> {
    let Some(frame) = encode(0, message) else { return Ok(()) };
    match &decode(&frame, usize::MAX)[..] {
        [Item::Message(read)] => same("a message", read, message),
        other => Err(format!("{message:?} becomes {other:?}")),
    }
}

/// Complaints are the same in whatever pieces the console comes, and can be shown.
pub(crate) fn console(bytes: &[u8]) -> Held {
    let mut whole = Console::default();
    let complaints = whole.feed(bytes);
    let mut pieces = Console::default();
    let in_pieces: Vec<String> = bytes.chunks(3).flat_map(|piece| pieces.feed(piece)).collect();
    same("complaints in pieces", &in_pieces, &complaints)?;
    same("a panic in pieces", &pieces.panic(), &whole.panic())?;
    plain("the tail", &whole.tail())?;
    for line in &complaints {
        must(line.chars().all(is_plain), || format!("{line:?} can't be shown"))?;
    }
    must(whole.panic().is_none_or(|line| complaints.iter().any(|c| c == line)), || {
        format!("a panic that is no complaint: {:?}", whole.panic())
    })?;
    Ok(!complaints.is_empty())
}

/// A kernel that is unpacked begins as an ELF file. The bytes are looked at as a packed kernel, too.
pub(crate) fn image(bytes: &[u8]) -> Held {
    let images = [bytes.to_vec(), packed(ZSTD, bytes), packed(LZ4, bytes)];
    let kernels: Vec<Vec<u8>> = images.iter().filter_map(|image| unpacked(image)).collect();
    for kernel in &kernels {
        must(kernel.starts_with(b"\x7fELF"), || format!("a kernel: {:?}", kernel.get(..8)))?;
    }
    Ok(!kernels.is_empty())
}

/// A boot image with a packed kernel, whose size stands behind it.
fn packed(magic: [u8; 4], bytes: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
    let payload = [&magic[..], bytes].concat();
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    image[0x24c..0x250].copy_from_slice(&len.to_le_bytes());
    image.extend(payload);
    image
}
