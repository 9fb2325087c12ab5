// Check holds CycloneDX files to the format's own JSON schema, and reads them by the
// format's own library: what depends on nothing that is there is an error too.
//
//	check FOLDER FILE...    FOLDER has the schemas
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: check FOLDER FILE...")
		os.Exit(2)
	}
	for _, file := range os.Args[2:] {
		n, err := check(os.Args[1], file)
		if err != nil {
			fmt.Fprintf(os.Stderr, "check: %s: %v\n", file, err)
			os.Exit(1)
		}
		fmt.Printf("%s: %d components, good by CycloneDX's schema\n", file, n)
	}
}

// folder finds schemas by the last part of their addresses.
type folder string

// Load implements jsonschema.URLLoader.
func (f folder) Load(url string) (any, error) {
	name := path.Base(url)
	file, err := os.Open(filepath.Join(string(f), name))
	if os.IsNotExist(err) { // the library's own spelling
		file, err = os.Open(filepath.Join(string(f), strings.Replace(name, ".schema.json", ".schemax.json", 1)))
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return jsonschema.UnmarshalJSON(file)
}

func check(schemas, file string) (components int, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	bom := new(cdx.BOM)
	if err := cdx.NewBOMDecoder(bytes.NewReader(data), cdx.BOMFileFormatJSON).Decode(bom); err != nil {
		return 0, err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return 0, err
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(folder(schemas))
	c.AssertFormat()
	schema, err := c.Compile("http://cyclonedx.org/schema/bom-" + bom.SpecVersion.String() + ".schema.json")
	if err != nil {
		return 0, err
	}
	if err := schema.Validate(document); err != nil {
		return 0, err
	}
	return whole(bom)
}

// whole counts a file's components, and holds its dependencies to them.
func whole(bom *cdx.BOM) (int, error) {
	if bom.Components == nil || bom.Dependencies == nil || bom.Metadata == nil || bom.Metadata.Component == nil {
		return 0, io.ErrUnexpectedEOF
	}
	there := map[string]bool{bom.Metadata.Component.BOMRef: true}
	for _, c := range *bom.Components {
		if there[c.BOMRef] {
			return 0, fmt.Errorf("%s is there twice", c.BOMRef)
		}
		there[c.BOMRef] = true
	}
	for _, d := range *bom.Dependencies {
		if !there[d.Ref] {
			return 0, fmt.Errorf("%s is not there", d.Ref)
		}
		if d.Dependencies == nil {
			continue
		}
		for _, on := range *d.Dependencies {
			if !there[on] {
				return 0, fmt.Errorf("%s depends on %s, which is not there", d.Ref, on)
			}
		}
	}
	return len(*bom.Components), nil
}
