use super::*;
use crate::known;

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
            assert!(html.len() <= 150_000, "{name}: {} bytes", html.len());
        }
    });
}
