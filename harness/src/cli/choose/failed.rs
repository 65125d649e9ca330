//! Kernels that can't be had, while others can.

use crate::kernels::FetchError;
use anyhow::{Context, Result};

/// Kernels that could not be had.
#[derive(Default)]
pub(super) struct Failed {
    first: Option<FetchError>,
    more: usize,
}

impl Failed {
    /// Takes one; an error that all others would meet as well is returned.
    pub(super) fn take(
        &mut self,
        wanted: &str,
        error: FetchError,
        say: &dyn Fn(&str),
    ) -> Result<()> {
        if matches!(error, FetchError::Storage { .. }) {
            return Err(error.into());
        }
        if self.first.is_none() {
            self.first = Some(error);
        } else {
            self.more += 1;
            say(&format!("{wanted}: {error}"));
        }
        Ok(())
    }

    /// The end of all: fails if one could not be had.
    pub(super) fn end(self) -> Result<()> {
        match (self.first, self.more) {
            (None, _) => Ok(()),
            (Some(error), 0) => Err(error.into()),
            (Some(error), n) => Err(error).with_context(|| {
                format!("{} of the chosen kernels can't be had; the first", n + 1)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn one_kernel_that_cannot_be_had_costs_no_other() {
        let gone =
            |package: &str| FetchError::Gone { package: package.into(), detail: "404".into() };
        let (said, mut failed) = (RefCell::new(Vec::new()), Failed::default());
        let say = |text: &str| said.borrow_mut().push(text.to_owned());
        for package in ["a", "b", "c"] {
            failed.take("7.*", gone(package), &say).expect("it goes on");
        }
        let full = FetchError::Storage { folder: "/c".into(), detail: "full".into() };
        failed.take("6.*", full, &say).expect_err("it is the same for all");
        let error = format!("{:#}", failed.end().expect_err("it is told"));
        assert!(
            error.starts_with("3 of the chosen kernels") && error.contains("a is gone"),
            "{error}"
        );
        assert_eq!(said.into_inner().len(), 2);
        Failed::default().end().expect("all could be had");
    }
}
