use super::*;
use crate::known;
use uffd_results::{Cases, Facts, Outcome};

fn world_of<T>(of: impl FnOnce(&World<'_>) -> T) -> T {
    let known = known::built_in();
    of(&World::of(&[], &known, &[]))
}

#[test]
fn every_recorded_probe_has_a_whole_page() {
    world_of(|world| {
        let pages = pages(world).expect("pages");
        assert_eq!(pages.len(), world.data.probes().count());
        for page in pages {
            let (name, statement) = (page.title.clone(), page.summary.clone());
            let (path, html) = page.html();
            let statement = html! { (statement) }.into_string();
            let parts = [
                "id=\"statement\"",
                "id=\"kernels\"",
                "id=\"facts\"",
                "id=\"fact-",
                "id=\"expected\"",
                "id=\"picture\"",
                "id=\"changes\"",
                "id=\"consumers\"",
                "role=\"img\"",
                "id=\"case-",
                "uffd-conform run -k",
                "uffd-conform show &#39;",
            ];
            for part in parts {
                assert!(
                    html.contains(part) || html.contains(&part.replace("&#39;", "'")),
                    "{path} has no {part}"
                );
            }
            assert!(html.contains(&statement), "{path}");
            assert!(html.len() <= 200_000, "{name}: {} bytes", html.len());
        }
    });
}

/// What a kernel may call itself.
const HOSTILE: &str = "6.12.43-<script>alert(1)</script>\"'&";

#[test]
fn names_and_details_of_kernels_are_text() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let store = crate::store::Store::new(std::path::Path::new(folder));
    let mut record = store.load().expect("stored records").remove(0);
    HOSTILE.clone_into(&mut record.kernel.release);
    HOSTILE.clone_into(&mut record.kernel.version);
    let detail = "<img src=x onerror=alert(2)>";
    let outcome = Outcome::ended(End::Hang, detail, Facts::new());
    let (case, axes) = ("copy/munmap", "backing=anon,part=middle,waiter=user-read,msg=read");
    record.cases = Cases::new(vec![(format!("{case}[{axes}]"), outcome)]);
    let data = known::dataset(std::slice::from_ref(&record)).expect("a table");
    let known = known::Known::from(data);
    let note = crate::notes::Note {
        probe: case.into(),
        kernels: Vec::new(),
        facts: vec!["<b>fact".into()],
        says: "<i>says".into(),
        source: "<u>source".into(),
    };
    let (records, notes) = ([record], [note]);
    let world = World::of(&records, &known, &notes);
    let pages = pages(&world).expect("pages");
    let (_, html) = pages.into_iter().next().expect("a page").html();
    let (_, overview) = super::super::overview::page(&world).html();
    for text in [html.as_str(), overview.as_str()] {
        for bad in ["<script>alert", "<img", "<b>fact", "<i>says", "<u>source"] {
            assert!(!text.contains(bad), "{bad} in {text}");
        }
    }
    assert!(html.contains("&lt;img src=x") && html.contains("&lt;i&gt;says"), "{html}");
}

#[test]
fn a_case_that_readers_know_stands_for_the_others() {
    world_of(|world| {
        let question =
            world.questions.iter().find(|q| q.name == "copy/mmap-over").expect("recorded");
        let typical = Typical::of(world, question).expect("a case");
        assert_eq!(
            typical.id,
            "copy/mmap-over[backing=anon,part=middle,over=anon,waiter=user-read,msg=read]"
        );
        assert_eq!(typical.kernel, world.kernels().len() - 1);
    });
}

#[test]
fn a_claim_that_kernels_show_false_does_not_hold() {
    world_of(|world| {
        let newest = world.kernels().len() - 1;
        let standing = |name: &str| world.data.probe(name).expect("recorded").stands(newest);
        assert_eq!(standing("claims/change-wakes"), Some(uffd_results::Held::Fails));
        assert_eq!(standing("claims/cleanup-frees"), Some(uffd_results::Held::Partly));
        assert_eq!(standing("claims/wake-is-enough"), Some(uffd_results::Held::Holds));
    });
}
