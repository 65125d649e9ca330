//! Tables and code in Markdown, out of texts that may come from anywhere.

/// A row of a Markdown table; cells can't break out of it.
pub(crate) fn row(cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<String> = cells.into_iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// The head of a Markdown table: names, and the line below them.
pub(crate) fn head(cells: Vec<String>) -> String {
    let rule = row(cells.iter().map(|_| "---".to_owned()));
    row(cells) + &rule
}

/// Text from a record, safe to show in Markdown as code.
pub(crate) fn code(text: &str) -> String {
    let safe: String = text.chars().filter(|c| !c.is_control() && *c != '`').collect();
    format!("`{safe}`")
}
