//! What an export action says about the files it brings out.

use serde_json::{Value, json};

/// Longest target of a link that is looked at, in bytes (`PATH_MAX`); a longer one counts as
/// leading anywhere.
pub const LONGEST_TARGET: usize = 4096;

/// A file of a change, as the side that computed the change saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedFile {
    /// Path in the repository.
    pub path: String,
    /// What becomes of it.
    pub kind: ExportedKind,
    /// Its new size in bytes; absent for what has none.
    pub bytes: Option<u64>,
}

/// What becomes of a changed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportedKind {
    /// A file that is not executable, or was executable before.
    File,
    /// A file that becomes executable.
    Executable,
    /// A symbolic link; the target is absent when it is longer than [`LONGEST_TARGET`].
    Link(Option<String>),
    /// A commit of another repository.
    Submodule,
    /// Nothing: it is removed.
    Removed,
}

impl ExportedKind {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Executable => "executable",
            Self::Link(_) => "link",
            Self::Submodule => "submodule",
            Self::Removed => "removed",
        }
    }
}

/// The files as an action's arguments: `files` (paths), `sizes` (one for each path, `null`
/// where there is none) and `special` (everything that is no plain file).
pub fn to_args(files: &[ExportedFile]) -> Value {
    let special: Vec<Value> = files
        .iter()
        .filter(|file| file.kind != ExportedKind::File)
        .map(|file| {
            let mut row = json!({ "path": file.path, "kind": file.kind.as_str() });
            if let ExportedKind::Link(Some(target)) = &file.kind {
                row["target"] = json!(target);
            }
            row
        })
        .collect();
    json!({
        "files": files.iter().map(|file| &file.path).collect::<Vec<_>>(),
        "sizes": files.iter().map(|file| file.bytes).collect::<Vec<_>>(),
        "special": special,
    })
}

/// Reads them back; `None` when anything about them is not as [`to_args`] writes it.
pub fn from_args(args: &Value) -> Option<Vec<ExportedFile>> {
    let (paths, sizes) = (args.get("files")?.as_array()?, args.get("sizes")?.as_array()?);
    if paths.len() != sizes.len() {
        return None;
    }
    let mut files = Vec::with_capacity(paths.len());
    for (path, size) in paths.iter().zip(sizes) {
        files.push(ExportedFile {
            path: path.as_str()?.to_owned(),
            kind: ExportedKind::File,
            bytes: match size {
                Value::Null => None,
                size => Some(size.as_u64()?),
            },
        });
    }
    // Both lists stand in the same order, so one walk finds every place.
    let mut place = files.iter_mut();
    for row in args.get("special")?.as_array()? {
        let path = row.get("path")?.as_str()?;
        let file = place.find(|file| file.path == path)?;
        file.kind = match row.get("kind")?.as_str()? {
            "executable" => ExportedKind::Executable,
            "link" => ExportedKind::Link(row.get("target").and_then(Value::as_str).map(str::to_owned)),
            "submodule" => ExportedKind::Submodule,
            "removed" => ExportedKind::Removed,
            _ => return None,
        };
    }
    // Only what has no content of its own may come without a size.
    let sized = |file: &ExportedFile| {
        file.bytes.is_some() || matches!(file.kind, ExportedKind::Submodule | ExportedKind::Removed)
    };
    files.iter().all(sized).then_some(files)
}
