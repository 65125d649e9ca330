//! The plan: what a guest is asked to do. A text file in its initramfs.

use std::collections::BTreeMap;

/// Settings and case ids, in the order in which the cases are to run.
///
/// As text: a line `name=value` a setting, an empty line, a line a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Settings for the guest; which names mean something is the runner's business.
    pub settings: BTreeMap<String, String>,
    /// Case ids.
    pub cases: Vec<String>,
}

impl Plan {
    /// What can't be written as a plan, if anything: an empty line would end the settings, a line
    /// break would make two cases of one.
    pub fn fault(&self) -> Option<String> {
        let breaks = ['\n', '\r', '\0'];
        let line_ok = |s: &str| !s.is_empty() && !s.contains(breaks);
        let setting = |(name, value): &(&String, &String)| {
            !line_ok(name) || name.contains('=') || value.contains(breaks)
        };
        if let Some((name, value)) = self.settings.iter().find(setting) {
            return Some(format!("the setting {name:?}={value:?} does not fit on a line"));
        }
        let case = self.cases.iter().find(|id| !line_ok(id))?;
        Some(format!("the case id {case:?} does not fit on a line"))
    }

    /// The text form.
    pub fn to_text(&self) -> String {
        let settings = self.settings.iter().map(|(name, value)| format!("{name}={value}\n"));
        let cases = self.cases.iter().map(|id| format!("{id}\n"));
        settings.chain(std::iter::once("\n".to_owned())).chain(cases).collect()
    }

    /// Reads the text form; the error says which line is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut plan = Self::default();
        let mut lines = text.lines();
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            let (name, value) =
                line.split_once('=').ok_or_else(|| format!("{line:?} is not name=value"))?;
            plan.settings.insert(name.to_owned(), value.to_owned());
        }
        plan.cases = lines.map(str::to_owned).collect();
        plan.fault().map_or(Ok(plan), Err)
    }

    /// The value of a setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn plan(settings: &[(&str, &str)], cases: &[&str]) -> Plan {
        Plan {
            settings: settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            cases: cases.iter().map(|&c| c.to_owned()).collect(),
        }
    }

    #[rstest]
    #[case(plan(&[], &[]))]
    #[case(plan(&[], &["copy/a[x=1]", "wake/b"]))]
    #[case(plan(&[("accelerator", "tcg"), ("empty", "")], &["copy/a[x=1]"]))]
    fn text_round_trips(#[case] plan: Plan) {
        assert_eq!(plan.fault(), None);
        assert_eq!(Plan::parse(&plan.to_text()), Ok(plan));
    }

    #[rstest]
    #[case(plan(&[], &["a\nb"]))]
    #[case(plan(&[], &[""]))]
    #[case(plan(&[("a=b", "c")], &[]))]
    #[case(plan(&[("", "c")], &[]))]
    #[case(plan(&[("a", "b\nc")], &[]))]
    #[case(plan(&[("a", "b\r")], &["c\r"]))]
    fn what_does_not_fit_on_a_line_is_named(#[case] plan: Plan) {
        assert!(plan.fault().is_some_and(|why| why.contains("does not fit on a line")));
    }
}
