package request

import (
	"fmt"
	"strconv"

	"github.com/moby/buildkit/client"

	"github.com/optbuild/optbuild/builder/compress"
)

// Attributes of an output of an image that are about its compression. They count more than the flags of the same meaning.
const (
	attrCompression = "compression"
	attrLevel       = "compression-level"
	attrForce       = "force-compression"
	attrOCITypes    = "oci-mediatypes"
)

// compression completes the attributes of outputs that have layers.
func (r *Request) compression(s *Solve) error {
	if r.Compression != "" {
		if _, err := compress.Parse(r.Compression); err != nil {
			return flagErrorf("compression", r.Compression, "%w", err)
		}
	}
	images := 0
	for _, e := range s.Exports {
		switch e.Type {
		case client.ExporterImage, client.ExporterOCI, client.ExporterDocker:
			images++
			if err := r.compressionOf(e.Attrs); err != nil {
				return err
			}
		}
	}
	if images == 0 && (r.Compression != "" || r.CompressionLevel != "" || r.ForceCompression) {
		s.Warnings = append(s.Warnings, "there are no layers to compress: no output is an image")
	}
	return nil
}

// early tells the engine what the first image that leaves will be made with, so that its layers are made before.
func (s *Solve) early() error {
	for _, e := range s.Exports {
		switch e.Type {
		case client.ExporterImage, client.ExporterOCI, client.ExporterDocker:
			export, err := compress.FormatExport(e.Attrs)
			if err != nil {
				return err
			}
			s.FrontendAttrs[compress.AttrExport] = export
			return nil
		}
	}
	return nil
}

func (r *Request) compressionOf(attrs map[string]string) error {
	where := func(attr string) (string, string) { // flag and value, for errors
		if v, ok := attrs[attr]; ok {
			return "output", attr + "=" + v
		}
		return attr, map[string]string{attrCompression: r.Compression, attrLevel: r.CompressionLevel}[attr]
	}
	name, ok := attrs[attrCompression]
	if !ok {
		name = r.Compression
	}
	format := compress.Gzip
	if name != "" {
		var err error
		if format, err = compress.Parse(name); err != nil {
			flag, value := where(attrCompression)
			return flagErrorf(flag, value, "%w", err)
		}
	}
	level, ok := attrs[attrLevel]
	if !ok {
		level = r.CompressionLevel
	}
	if level != "" {
		n, err := strconv.Atoi(level)
		if err == nil {
			err = format.CheckLevel(n)
		} else {
			err = fmt.Errorf("%q is not a number", level)
		}
		if err != nil {
			flag, value := where(attrLevel)
			return flagErrorf(flag, value, "%w", err)
		}
	}
	if format.Lazy() {
		if v, ok := attrs[attrOCITypes]; ok && !isTrue(v) {
			return flagErrorf("output", attrOCITypes+"="+v, "%s needs OCI media types, which hold its annotations", format)
		}
		attrs[attrOCITypes] = "true"
		if _, ok := attrs[attrForce]; !ok {
			attrs[attrForce] = "true" // a base layer of another format would be pulled as a whole
		}
	}
	if name != "" || !r.Exact {
		attrs[attrCompression] = string(format) // else what is cached in another format, from another build, would stay so
	}
	if format == compress.ZstdChunked {
		attrs[attrCompression], attrs[compress.AttrChunked] = string(compress.Zstd), "true"
	}
	if level != "" {
		attrs[attrLevel] = level
	}
	if _, ok := attrs[attrForce]; !ok && r.ForceCompression {
		attrs[attrForce] = "true"
	}
	return nil
}
