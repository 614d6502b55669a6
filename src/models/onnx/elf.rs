//! Which libraries a shared library needs, from its ELF file: so that the version of CUDA that a runtime was built for is
//! read, not assumed.
//!
//! Only what Linux has on x86-64 and ARM is read: 64 bits, little-endian. Names of constants are those of `elf.h`.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    path::Path,
};

/// The most segments and the most entries of the dynamic section that are read. Real files have some ten and some forty.
const MAX_SEGMENTS: u16 = 256;
const MAX_ENTRIES: u64 = 4096;

/// The longest name of a library, in bytes.
const MAX_NAME: u64 = 256;

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

/// Part of a file, and where it is in memory.
struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    size: u64,
}

/// Returns the names of the libraries that a shared library needs, in its order.
///
/// # Errors
/// Returns `InvalidData` if the file is not a shared library of this platform, and `UnexpectedEof` if it is cut short.
pub(super) fn needed(path: &Path) -> io::Result<Vec<String>> {
    read_needed(&mut File::open(path)?)
}

fn read_needed(file: &mut (impl Read + Seek)) -> io::Result<Vec<String>> {
    let segments = segments(file)?;
    let dynamic = segments.iter().find(|segment| segment.kind == PT_DYNAMIC).ok_or(ErrorKind::InvalidData)?;
    file.seek(SeekFrom::Start(dynamic.offset))?;
    let (mut names, mut strings) = (Vec::new(), None);
    for _ in 0..(dynamic.size / 16).min(MAX_ENTRIES) {
        let [tag, value] = [number(file)?, number(file)?];
        match tag {
            DT_NULL => break,
            DT_NEEDED => names.push(value),
            DT_STRTAB => strings = offset_of(&segments, value),
            _ => {}
        }
    }
    let strings = strings.ok_or(ErrorKind::InvalidData)?;
    names.into_iter().map(|name| text(file, strings.checked_add(name).ok_or(ErrorKind::InvalidData)?)).collect()
}

fn segments(file: &mut (impl Read + Seek)) -> io::Result<Vec<Segment>> {
    let header: [u8; 64] = bytes(file)?;
    let (magic, rest) = header.split_at(4);
    // Class 2 has 64 bits, data 1 is little-endian.
    if magic != b"\x7fELF" || rest.first_chunk() != Some(&[2, 1]) {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut fields = &header[32..];
    let table = number(&mut fields)?;
    let mut fields = &header[54..];
    let [size, count] = [short(&mut fields)?, short(&mut fields)?];
    if size != 56 || count > MAX_SEGMENTS {
        return Err(ErrorKind::InvalidData.into());
    }
    file.seek(SeekFrom::Start(table))?;
    let segment = |_| {
        // The kind has four bytes, the flags the other four.
        let kind = number(file)? & u64::from(u32::MAX);
        let [offset, address, _, size] = [number(file)?, number(file)?, number(file)?, number(file)?];
        let _: [u8; 16] = bytes(file)?;
        Ok(Segment { kind, offset, address, size })
    };
    (0..count).map(segment).collect()
}

/// Returns the position in the file of an address in memory.
fn offset_of(segments: &[Segment], address: u64) -> Option<u64> {
    let holds = |segment: &&Segment| {
        segment.kind == PT_LOAD && address >= segment.address && address - segment.address < segment.size
    };
    let segment = segments.iter().find(holds)?;
    segment.offset.checked_add(address - segment.address)
}

fn text(file: &mut (impl Read + Seek), at: u64) -> io::Result<String> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(MAX_NAME).read_to_end(&mut bytes)?;
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(ErrorKind::InvalidData)?;
    bytes.truncate(end);
    String::from_utf8(bytes).map_err(|_| ErrorKind::InvalidData.into())
}

fn bytes<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn number(reader: &mut impl Read) -> io::Result<u64> {
    bytes(reader).map(u64::from_le_bytes)
}

fn short(reader: &mut impl Read) -> io::Result<u16> {
    bytes(reader).map(u16::from_le_bytes)
}

/// A shared library that needs others and holds nothing else.
#[cfg(test)]
pub(super) fn library(needed: &[&str]) -> Vec<u8> {
    let mut strings = vec![0];
    let mut entries: Vec<u64> = Vec::new();
    for name in needed {
        entries.extend([DT_NEEDED, strings.len() as u64]);
        strings.extend(name.bytes().chain([0]));
    }
    // The header, three segments, the entries with three more, then the strings; loaded at 1 MiB.
    let (dynamic, base) = (64 + 3 * 56, 1 << 20);
    let string_table = dynamic + (entries.len() as u64 + 6) * 8;
    entries.extend([DT_STRTAB, base + string_table, 10, strings.len() as u64, DT_NULL, 0]);
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
    file.extend([0, 64, 0].map(u64::to_le_bytes).concat());
    file.extend([0, 0, 64, 56, 3, 64, 0, 0].map(u16::to_le_bytes).concat());
    let size = string_table + strings.len() as u64;
    // PT_GNU_STACK comes first: it is skipped.
    for [kind, offset, size] in [[0x6474_e551, 0, 0], [PT_LOAD, 0, size], [PT_DYNAMIC, dynamic, size - dynamic]] {
        file.extend([kind, offset, base + offset, base + offset, size, size, 4096].map(u64::to_le_bytes).concat());
    }
    file.extend(entries.into_iter().flat_map(u64::to_le_bytes));
    file.extend(strings);
    file
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn the_needed_libraries_are_read_in_order() {
        let names = ["libcublas.so.13", "libc.so.6", "libcuda.so.1"];
        assert_eq!(read_needed(&mut Cursor::new(library(&names))).unwrap(), names);
        assert!(read_needed(&mut Cursor::new(library(&[]))).unwrap().is_empty());
        // A real one: this program.
        let own = needed(&std::env::current_exe().unwrap());
        #[cfg(target_os = "linux")]
        assert!(own.unwrap().iter().any(|name| name.starts_with("libc.so")));
    }

    #[test]
    fn what_is_not_such_a_library_is_an_error_and_never_a_panic() {
        let sound = library(&["libcublas.so.13"]);
        for end in 0..sound.len() {
            assert!(read_needed(&mut Cursor::new(&sound[..end])).is_err(), "cut at {end}");
        }
        for at in 0..sound.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut damaged = sound.clone();
                damaged[at] = byte;
                let _ = read_needed(&mut Cursor::new(damaged));
            }
        }
        for other in [&b"#!/bin/sh"[..], b"\x7fELF\x01\x01", b"\xcf\xfa\xed\xfe", b""] {
            assert!(read_needed(&mut Cursor::new(other)).is_err());
        }
    }
}
