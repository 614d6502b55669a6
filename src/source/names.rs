//! What the name of a file tells: whether it is an image, and whether a tool left it behind.

/// Endings of the images that are read, without the dot.
const IMAGE_ENDINGS: [&str; 10] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// Names of folders and files that tools and systems leave between a user's own, in lower case. Names that begin with a
/// dot belong to them too: `.git`, `.ipynb_checkpoints`, `.DS_Store`, and macOS's `._NAME`.
const LEFT_BEHIND: [&str; 14] = [
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "@__thumb",
    "@eadir",
    "@recycle",
    "@tmp",
    "__macosx",
    "__pycache__",
    "desktop.ini",
    "ehthumbs.db",
    "lost+found",
    "system volume information",
    "thumbs.db",
];

/// Returns whether a file or member is an image by the ending of its name.
pub(super) fn is_image(name: &str) -> bool {
    let ending = ending(name);
    IMAGE_ENDINGS.iter().any(|known| ending.strip_prefix('.') == Some(known))
}

/// Returns the ending of a file's name in lower case, as `.tif`; empty if it has none.
pub(super) fn ending(name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    let ending = file.rsplit_once('.').filter(|(stem, ending)| !stem.is_empty() && !ending.is_empty());
    ending.map_or_else(String::new, |(_, ending)| format!(".{}", ending.to_lowercase()))
}

/// Returns whether a part of `path` is hidden, or was left behind by a tool.
pub(super) fn is_left_behind(path: &str) -> bool {
    path.split('/').any(|part| {
        let hidden = part.starts_with('.') && !matches!(part, "." | "..");
        hidden || LEFT_BEHIND.contains(&part.to_lowercase().as_str())
    })
}

/// Returns the endings of images for a message.
pub(super) fn image_endings() -> String {
    IMAGE_ENDINGS.map(|ending| format!("`.{ending}`")).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_follows_the_last_dot() {
        for image in ["a.JPG", "b/c.tar.png", "x.jfif", "x.JPE", "ü.Tiff", "a b.webp"] {
            assert!(is_image(image), "{image}");
        }
        for other in ["a.heic", "png", ".png", "a.png/b", "a.png.txt", "a."] {
            assert!(!is_image(other), "{other}");
        }
        assert_eq!((ending("a/b.TIF"), ending("b.d/c")), (".tif".to_owned(), String::new()));
    }

    #[test]
    fn hidden_names_are_left_behind() {
        for left in
            [".git", "a/.ipynb_checkpoints/b.png", "@eaDir/x", "a/._b.png", "Thumbs.db", "__MACOSX/a", "lost+found"]
        {
            assert!(is_left_behind(left), "{left}");
        }
        for own in ["a/b.png", "./a", "a.b", "_a", "#1", "@home", "macosx"] {
            assert!(!is_left_behind(own), "{own}");
        }
    }
}
