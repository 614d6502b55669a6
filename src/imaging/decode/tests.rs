//! Against pictures that Pillow wrote (`tests/fixtures/imaging`), and against broken ones.

use super::*;
use crate::imaging::{Filter, resize};

fn fixture(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/imaging").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn picture(name: &str) -> RgbImage {
    decode(&fixture(name), &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn largest_difference(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

#[test]
fn every_kind_of_picture_becomes_rgb() {
    let reference = picture("rgb.png");
    assert_eq!(reference.dimensions(), (53, 37));
    assert_eq!(reference.get_pixel(3, 2).0, [12, 12, 13]);
    assert_eq!(largest_difference(&picture("alpha.png"), &reference), 0, "alpha is dropped, not composited");
    assert_eq!(largest_difference(&picture("lossless.webp"), &reference), 0);
    assert_eq!(largest_difference(&picture("animated.webp"), &reference), 0, "the first frame");
    for lossy in ["cmyk.jpg", "progressive.jpg", "lossy.webp", "palette.png"] {
        let other = picture(lossy);
        let sum: u64 = other.as_raw().iter().zip(reference.as_raw()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        let mean = sum as f64 / reference.as_raw().len() as f64;
        assert!(mean < 12.0, "{lossy}: mean difference {mean}");
    }
    let grey = picture("grey16.png");
    assert!(grey.pixels().zip(reference.pixels()).all(|(grey, rgb)| grey.0 == [rgb.0[0]; 3]));
}

#[test]
fn every_cut_off_file_is_an_error() {
    for name in ["rgb.png", "progressive.jpg", "cmyk.jpg", "lossy.webp", "lossless.webp", "palette.png"] {
        let bytes = fixture(name);
        for length in 0..bytes.len() {
            assert!(info(&bytes[..length], &Limits::default()).is_err(), "{name} cut to {length} bytes");
        }
        assert!(info(&bytes, &Limits::default()).is_ok(), "{name}");
    }
}

#[test]
fn flipped_bytes_never_panic() {
    for name in ["rgb.png", "progressive.jpg", "lossy.webp", "lossless.webp"] {
        let bytes = fixture(name);
        for at in (0..bytes.len()).step_by(7) {
            let mut broken = bytes.clone();
            broken[at] ^= 0xa5;
            let _ = decode(&broken, &Limits::default());
        }
    }
}

#[test]
fn messages_say_what_is_wrong() {
    let message = |bytes: &[u8]| decode(bytes, &Limits::default()).unwrap_err().to_string();
    assert_eq!(message(b""), "the file is empty");
    assert_eq!(message(b"hello there\n"), "not a picture: it looks like `text`");
    assert_eq!(message(b"<!doctype html><p>404"), "not a picture: it looks like `html` or `xml`");
    assert_eq!(message(b"%PDF-1.7"), "not a picture: it looks like a pdf document");
    assert_eq!(message(&[0, 1, 2, 3]), "not a picture: it looks like binary data of no known kind");
    assert_eq!(
        message(b"GIF89a......"),
        "the picture format `gif` is not supported; supported are `png`, `jpeg` and `webp`"
    );
    assert_eq!(message(&fixture("rgb.png")[..100]), "the `png` picture is truncated or corrupt");
}

#[test]
fn limits_are_checked_against_the_header() {
    let png = fixture("rgb.png");
    let refused = |limits: Limits| decode(&png, &limits).unwrap_err().to_string();
    let limits = Limits::default();
    assert_eq!(
        refused(Limits { max_pixels: 1000, ..limits }),
        "the picture is 53 x 37 pixels, more than the limit of 1000 pixels"
    );
    assert_eq!(
        refused(Limits { max_side: 52, ..limits }),
        "the picture is 53 x 37 pixels, and a side may have 52 at most"
    );
    assert_eq!(
        refused(Limits { max_bytes: 10, ..limits }),
        format!("the file has {} bytes, more than the limit of 10", png.len())
    );
}

#[test]
fn info_tells_the_contents() {
    let png = fixture("rgb.png");
    let info = info(&png, &Limits::default()).unwrap();
    assert_eq!((info.width, info.height, info.format), (53, 37, "png"));
    assert_eq!(info.digest.len(), 64);
}

#[test]
fn png_is_lossless_and_the_same_every_time() {
    let image = picture("rgb.png");
    let png = encode_png(&image).unwrap();
    assert_eq!(png, encode_png(&image).unwrap());
    assert_eq!(decode(&png, &Limits::default()).unwrap(), image);
}

#[test]
fn resizing_is_pillows() {
    let image = picture("rgb.png");
    for (name, filter) in [("bilinear", Filter::Bilinear), ("bicubic", Filter::Bicubic), ("lanczos", Filter::Lanczos)] {
        for (width, height) in [(20, 16), (64, 80)] {
            let pillow = picture(&format!("{name}_{width}x{height}.png"));
            let ours = resize(&image, width, height, filter).unwrap();
            assert!(largest_difference(&ours, &pillow) <= 1, "{name} {width}x{height}");
        }
    }
}
