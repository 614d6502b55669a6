//! A data set of about a thousand files as people have them: the census of a run accounts for every file.

#![cfg(unix)]

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
};

use image::ImageFormat;
use serde_json::Value;

use crate::{
    sources::{DIGITS, images, workspace, write},
    support::Workspace,
};

/// Name and folder of each split, and the sound images of each of its classes.
const SPLITS: [(&str, &str, usize); 2] = [("train", "train", 46), ("validation", "val", 18)];
const LFS_POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:12ab\nsize 345\n";
const HTML: &str = "<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n";

/// What a test wrote into a split.
#[derive(Debug, Default)]
struct Written {
    images: usize,
    /// A part of the reason, by path in the tables.
    rejects: BTreeMap<String, &'static str>,
    /// How many of them are known before images are read.
    known_rejects: usize,
    /// The classes all of whose images are rejects.
    unreadable: usize,
    /// By reason.
    skipped: BTreeMap<&'static str, usize>,
}

/// A split that is being written.
struct Split {
    folder: &'static str,
    path: PathBuf,
    written: Written,
}

impl Split {
    fn image(&mut self, name: &str, bytes: &[u8]) {
        write(&self.path.join(name), bytes);
        self.written.images += 1;
    }

    /// Notes an image that cannot be read, under its name in the tables.
    fn note_reject(&mut self, name: &str, reason: &'static str) {
        self.written.rejects.insert(format!("{}/{name}", self.folder), reason);
    }

    fn reject(&mut self, name: &str, bytes: impl AsRef<[u8]>, reason: &'static str) {
        write(&self.path.join(name), bytes.as_ref());
        self.note_reject(name, reason);
    }

    fn skip(&mut self, name: &str, reason: &'static str) {
        write(&self.path.join(name), LFS_POINTER.as_bytes());
        self.note_skip(reason);
    }

    fn note_skip(&mut self, reason: &'static str) {
        *self.written.skipped.entry(reason).or_default() += 1;
    }

    /// Writes sound images with the names that cameras, browsers and people give them.
    fn sound(&mut self, class: &str, count: usize, png: &[u8]) {
        let image = image::load_from_memory(png).unwrap().to_rgb8();
        let encoded = |format| {
            let mut bytes = io::Cursor::new(Vec::new());
            image.write_to(&mut bytes, format).unwrap();
            bytes.into_inner()
        };
        let (jpeg, webp) = (encoded(ImageFormat::Jpeg), encoded(ImageFormat::WebP));
        for number in 0..count {
            let (name, bytes): (String, &[u8]) = match number % 9 {
                0 => (format!("{number}.png"), png),
                1 => (format!("IMG_{number}.PNG"), png),
                2 => (format!("DSC{number}.JPG"), &jpeg),
                3 => (format!("photo ({number}).jpeg"), &jpeg),
                4 => (format!("{number}.webp"), &webp),
                5 => (format!("{number}.jfif"), &jpeg),
                6 => (format!("{number}.jpe"), &jpeg),
                7 => (format!("day 1/évening/#{number}.Jpeg"), &jpeg),
                // The content decides the format.
                _ => (format!("100% größe {number}.jpg"), png),
            };
            self.image(&format!("{class}/{name}"), bytes);
        }
    }

    /// Writes files that are images by their names alone.
    fn damaged(&mut self, class: &str, png: &[u8]) {
        self.reject(&format!("{class}/cut.png"), &png[..png.len() / 2], "");
        self.reject(&format!("{class}/empty.jpg"), "", "empty");
        self.reject(&format!("{class}/page.jpg"), HTML, "HTML page");
        self.reject(&format!("{class}/pointer.jpg"), LFS_POINTER, "Git LFS pointer");
        self.reject(&format!("{class}/text.png"), "no image", "");
        write(&self.path.join(class).join("a\tb.png"), png);
        self.note_reject(&format!("{class}/a\\\\tb.png"), "control characters");
        write(&self.path.join(class).join(OsStr::from_bytes(b"caf\xe9.png")), png);
        self.note_reject(&format!("{class}/caf\\xe9.png"), "not valid UTF-8");
        symlink("/no/such/file.png", self.path.join(class).join("moved.png")).unwrap();
        self.note_reject(&format!("{class}/moved.png"), "symbolic link to a file that does not exist");
        self.written.known_rejects += 3;
    }

    /// Writes classes of which no image can be read.
    fn unreadable(&mut self, png: &[u8]) {
        write(&self.path.join("a\tclass/0.png"), png);
        self.note_reject("a\\\\tclass/0.png", "control characters");
        write(&self.path.join(OsStr::from_bytes(b"caf\xe9/0.png")), png);
        self.note_reject("caf\\xe9/0.png", "not valid UTF-8");
        fs::create_dir(self.path.join("gone")).unwrap();
        symlink("/no/such/file.png", self.path.join("gone/0.png")).unwrap();
        self.note_reject("gone/0.png", "symbolic link to a file that does not exist");
        self.written.known_rejects += 3;
        self.written.unreadable += 3;
    }

    /// Writes files that are none of the data set's images.
    fn others(&mut self, class: &str) {
        for (name, reason) in [
            ("notes.txt", "`.txt`"),
            ("IMG_1.HEIC", "`.heic`"),
            ("drawing.svg", "`.svg`"),
            ("0.png.part", "`.part`"),
            ("README", "without an ending"),
            (".DS_Store", "hidden or of a tool"),
            ("._0.png", "hidden or of a tool"),
            ("Thumbs.db", "hidden or of a tool"),
            (".ipynb_checkpoints/0-checkpoint.png", "hidden or of a tool"),
            ("@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "hidden or of a tool"),
        ] {
            self.skip(&format!("{class}/{name}"), reason);
        }
        symlink("/no/such/file.txt", self.path.join(class).join("moved.txt")).unwrap();
        self.note_skip("`.txt`");
    }

    /// Writes what lies next to the class folders.
    fn beside(&mut self, png: &[u8]) {
        for (name, reason) in [
            ("index.html", "`.html`"),
            ("stray.png", "outside of the class folders"),
            ("Stray 2.JPG", "outside of the class folders"),
            ("caption.txt", "`.txt`"),
            ("desktop.ini", "hidden or of a tool"),
            (".git/HEAD", "hidden or of a tool"),
            (".git/lfs/0.png", "hidden or of a tool"),
            ("__MACOSX/zero/._0.png", "hidden or of a tool"),
            ("lost+found/1.png", "hidden or of a tool"),
            ("eleven/readme.md", "`.md`"),
        ] {
            self.skip(name, reason);
        }
        fs::create_dir(self.path.join("ten")).unwrap();
        symlink(&self.path, self.path.join("zero/again")).unwrap();
        self.note_skip("links in a circle");
        // Links to other places are followed.
        write(&self.path.join("../elsewhere/1.png"), png);
        symlink("../../elsewhere/1.png", self.path.join("one/linked.png")).unwrap();
        symlink("../../elsewhere", self.path.join("two/linked")).unwrap();
        self.written.images += 2;
    }
}

/// Writes the data set below `root`.
fn data_set(root: &Path) -> BTreeMap<&'static str, Written> {
    let digits = images();
    let mut written = BTreeMap::new();
    for (name, folder, count) in SPLITS {
        let mut split = Split { folder, path: root.join(folder), written: Written::default() };
        for (label, class) in (0..).zip(DIGITS) {
            let digit = digits.iter().find(|image| image.split == name && image.label == label).unwrap();
            split.sound(class, count, &digit.bytes);
            split.damaged(class, &digit.bytes);
            split.others(class);
        }
        split.beside(&digits[0].bytes);
        split.unreadable(&digits[0].bytes);
        written.insert(name, split.written);
    }
    written
}

/// Counts the files below a folder. A link counts as a file, unless it leads to a folder elsewhere.
fn files(folder: &Path) -> usize {
    let count = |path: PathBuf| {
        let leads_up = path.canonicalize().is_ok_and(|target| folder.canonicalize().unwrap().starts_with(target));
        if path.is_dir() && !leads_up { files(&path) } else { 1 }
    };
    fs::read_dir(folder).unwrap().map(|entry| count(entry.unwrap().path())).sum()
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

/// Checks that the census of a split says what was written. Before images are read, damaged ones count as images.
fn assert_adds_up(census: &Value, written: &Written, read: bool) {
    let rejects = if read { written.rejects.len() } else { written.known_rejects };
    assert_eq!(number(&census["rejects"]), rejects, "{census}");
    assert_eq!(number(&census["images"]), written.images + written.rejects.len() - rejects, "{census}");
    let skipped = census["skipped"].as_array().unwrap();
    let counts: BTreeMap<&str, usize> =
        skipped.iter().map(|skipped| (skipped["reason"].as_str().unwrap(), number(&skipped["count"]))).collect();
    assert_eq!(counts, written.skipped);
    let sum = number(&census["images"]) + rejects + counts.values().sum::<usize>();
    assert_eq!(number(&census["listed"]), sum, "{census}");
    assert_eq!(number(&census["classes"]), DIGITS.len(), "{census}");
    assert_eq!(census["unreadable"].as_array().unwrap().len(), written.unreadable, "{census}");
}

/// Checks the images and rejects of a split in the tables.
fn assert_tables(workspace: &Workspace, (split, folder): (&str, &str), written: &Written) {
    let images = workspace.number(&format!("SELECT count(*) FROM images WHERE split = '{split}'"));
    assert_eq!(images as usize, written.images);
    let rejects = workspace.query(&format!(
        "SELECT path, reason FROM rejects WHERE step = 'pixels' AND path LIKE '{folder}/%' ORDER BY path"
    ));
    assert_eq!(rejects.len(), written.rejects.len(), "{rejects:?}");
    for (path, reason) in &written.rejects {
        let reject = rejects.iter().find(|reject| reject["path"] == *path);
        let found =
            reject.and_then(|reject| reject["reason"].as_str()).unwrap_or_else(|| panic!("{path}: {rejects:?}"));
        assert!(!found.is_empty() && found.contains(reason), "{path}: {found}");
    }
}

#[test]
fn a_thousand_mixed_files_are_accounted_for() {
    let workspace =
        workspace("kind = \"imagefolder\"\nroot = \"DIR/data\"\nsplits = { train = \"train\", validation = \"val\" }");
    let written = data_set(&workspace.path("data"));
    let on_disk: usize = SPLITS.iter().map(|(_, folder, _)| files(&workspace.path("data").join(folder))).sum();
    assert!((1_000..1_200).contains(&on_disk), "{on_disk}");
    let checked = workspace.json("check", &[]);
    let run = workspace.json("run", &["--until", "images", "--set", "rejects.max_fraction=1"]);
    for (answer, read) in [(&checked, false), (&run, true)] {
        let warnings = answer["warnings"].to_string();
        for class in [r"a\\\\tclass", r"caf\\xe9", "gone"] {
            assert!(warnings.contains(&format!(r#"\"{class}\""#)), "{class}: {warnings}");
        }
        let splits = answer["census"]["splits"].as_array().unwrap();
        assert_eq!(splits.iter().map(|split| number(&split["listed"])).sum::<usize>(), on_disk);
        assert_eq!(splits.len(), written.len());
        for split in splits {
            assert_adds_up(split, &written[split["split"].as_str().unwrap()], read);
        }
    }
    for (split, folder, _) in SPLITS {
        assert_tables(&workspace, (split, folder), &written[split]);
    }
    assert_eq!(workspace.number("SELECT count(*) FROM rejects WHERE path IS NULL OR reason = ''"), 0.0);
}
