//! Release strings to look things up for, in whatever language.

use uffd_results::{Dataset, Origin, Release, Why};

/// Release strings of every form: recorded kernels, their neighbours, every word that is known of
/// builders and machines, and texts that are no release strings.
pub(crate) fn releases(data: &Dataset) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for kernel in data.kernels() {
        let v = kernel.upstream;
        let (series, patch) = (v.series(), v.patch);
        all.push(kernel.release.clone());
        all.push(kernel.release.replace("-cloud-", "-"));
        all.extend([
            v.to_string(),
            format!("{series}.{}", patch + 1),
            format!("{series}.0-50-amd64"),
        ]);
        // Of builds that Debian numbers: those around it, and one that is counted apart.
        let build = kernel.release.split('-').nth(1).and_then(|build| build.parse::<u16>().ok());
        for build in build.into_iter().flat_map(|build| build - 1..=build + 1) {
            all.push(format!("{series}.0-{build}-amd64"));
            all.push(format!("{series}.0-0.deb12.{build}-amd64"));
        }
        all.extend([format!("{series}.0-45-generic"), format!("{series}.{}-1-default", patch / 2)]);
    }
    let origins = [Origin::Ubuntu, Origin::Debian, Origin::Follower].map(Origin::words);
    for word in origins.concat().into_iter().chain(Release::MACHINES.iter().map(|(word, _)| *word))
    {
        all.extend(
            ["6.8.0-45", "6.12.60-1", "6.12.0+x", "6.1.0"].map(|head| format!("{head}-{word}")),
        );
    }
    let forms = include_str!("releases.txt").lines().map(str::to_owned);
    all.extend(forms.filter(|line| !line.starts_with('#')));
    all.extend([
        "6.1\u{e9}".to_owned(),
        format!("6.1-{}", "x".repeat(124)),
        format!("6.1-{}", "x".repeat(125)),
    ]);
    all
}

/// Fails unless lines of answers show every certainty, and every reason that a release string alone can give.
pub(crate) fn every_kind_of_answer(lines: &[String]) {
    for word in ["\texact\t", "\twithin series\t", "\tbetween series\t"] {
        assert!(lines.iter().any(|line| line.contains(word)), "no question is answered {word:?}");
    }
    for why in [
        Why::Disagree,
        Why::Newer,
        Why::Older,
        Why::PerhapsNewer,
        Why::PerhapsOlder,
        Why::CarriedBack,
        Why::Machine,
        Why::NotARelease,
    ] {
        assert!(lines.iter().any(|line| line.contains(&why.to_string())), "never: {why}");
    }
}
