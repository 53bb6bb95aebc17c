//! `compression=CODEC,compression-level=NUMBER`.

use dockerfile_parser::suggest;
use image::compress::Codec;

use super::keys::Keys;
use crate::flags::BadFlag;

/// What there is, as BuildKit calls it.
const CODECS: [Codec; 5] =
    [Codec::Uncompressed, Codec::GZIP, Codec::ESTARGZ, Codec::ZSTD, Codec::ZSTD_CHUNKED];

impl Keys<'_> {
    /// How layers are compressed; gzip where nothing is said.
    pub fn codec(&mut self) -> Result<Codec, BadFlag> {
        let level = self.take("compression-level");
        let codec = match self.take("compression") {
            None => Codec::GZIP,
            Some(name) => self.codec_named(&name)?,
        };
        let Some(text) = level else { return Ok(codec) };
        let Ok(level) = text.parse::<i64>() else {
            return Err(self.bad_with(format!("the level `{text}` is no number"), "compression-level=6"));
        };
        self.at_level(codec, level)
    }

    fn codec_named(&self, name: &str) -> Result<Codec, BadFlag> {
        if let Some(codec) = CODECS.into_iter().find(|codec| codec.name() == name) {
            return Ok(codec);
        }
        let names = CODECS.map(Codec::name);
        let why = format!("there is no compression `{name}`: {}", names.join(", "));
        // Who writes it without its colon, or in capitals, means that.
        let near = suggest::nearest(&name.to_ascii_lowercase(), &names).unwrap_or("zstd");
        Err(self.bad_with(why, format!("compression={near}")))
    }

    fn at_level(&self, codec: Codec, level: i64) -> Result<Codec, BadFlag> {
        // A level that no codec has, where the number is none of ours.
        let number = u32::try_from(level).unwrap_or(u32::MAX);
        let asked = match codec {
            Codec::Uncompressed => return Ok(codec),
            Codec::Gzip { .. } => Codec::Gzip { level: Some(number) },
            Codec::EStargz { .. } => Codec::EStargz { level: Some(number) },
            // BuildKit takes 0 as well, and makes it the fastest.
            Codec::Zstd { .. } => Codec::Zstd { level: number.max(1) },
            Codec::ZstdChunked { .. } => Codec::ZstdChunked { level: number.max(1) },
        };
        asked.check().map_err(|error| {
            let lowest = if codec.name().starts_with("zstd") { 0 } else { error.lowest };
            let name = codec.name();
            let why = format!("{name} has no level {level}, only {lowest} to {}", error.highest);
            let near = if level < 0 { lowest } else { error.highest };
            self.bad_with(why, format!("compression={name},compression-level={near}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec(text: &str) -> Result<Codec, BadFlag> {
        Keys::read(text).and_then(|mut keys| keys.codec())
    }

    #[test]
    fn codecs_and_levels_are_those_of_buildkit() {
        for (text, expected) in [
            ("type=oci", Codec::GZIP),
            ("compression=gzip", Codec::GZIP),
            ("compression-level=0", Codec::Gzip { level: Some(0) }),
            ("compression=zstd", Codec::ZSTD),
            ("compression=zstd,compression-level=22", Codec::Zstd { level: 22 }),
            ("compression=zstd,compression-level=0", Codec::Zstd { level: 1 }),
            ("compression=uncompressed,compression-level=3", Codec::Uncompressed),
            ("compression=estargz", Codec::ESTARGZ),
            ("compression=estargz,compression-level=9", Codec::EStargz { level: Some(9) }),
            ("compression=zstd:chunked", Codec::ZSTD_CHUNKED),
            ("compression=zstd:chunked,compression-level=0", Codec::ZstdChunked { level: 1 }),
        ] {
            assert_eq!(codec(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_there_is_not_is_told_with_what_there_is() {
        for (text, words) in [
            ("compression=lzma", "there is no compression `lzma`: uncompressed, gzip"),
            ("compression=zstdchunked", "zstd:chunked"),
            ("compression-level=10", "gzip has no level 10, only 0 to 9"),
            ("compression-level=-1", "gzip has no level -1, only 0 to 9"),
            ("compression=estargz,compression-level=10", "estargz has no level 10, only 0 to 9"),
            ("compression=zstd,compression-level=23", "zstd has no level 23, only 0 to 22"),
            ("compression=zstd:chunked,compression-level=4294967296", "zstd:chunked has no level 4294967296"),
            ("compression-level=best", "the level `best` is no number"),
        ] {
            let error = codec(text).expect_err(text).to_string();
            assert!(error.contains(words), "{error}");
        }
        let near = codec("compression=zstdchunked").expect_err("no such codec");
        assert!(format!("{near:?}").contains("compression=zstd:chunked"), "{near:?}");
    }
}
