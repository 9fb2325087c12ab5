package main

import (
	"context"
	"os"
	"path/filepath"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// A definition is a version of a custom resource.
type definition struct {
	structural *structuralschema.Structural
	schema     validation.SchemaValidator
	rules      *cel.Validator
}

// readDefinitions reads the CustomResourceDefinitions of a folder.
func readDefinitions(folder string) (map[schema.GroupVersionKind]definition, error) {
	all := make(map[schema.GroupVersionKind]definition)
	if folder == "" {
		return all, nil
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &crd); err != nil {
			return nil, err
		}
		for _, version := range crd.Spec.Versions {
			d, err := newDefinition(version.Schema)
			if err != nil {
				return nil, err
			}
			all[schema.GroupVersionKind{Group: crd.Spec.Group, Version: version.Name, Kind: crd.Spec.Names.Kind}] = d
		}
	}
	return all, nil
}

func newDefinition(external *apiextensionsv1.CustomResourceValidation) (d definition, err error) {
	var internal apiextensions.CustomResourceValidation
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(external, &internal, nil); err != nil {
		return d, err
	}
	if d.structural, err = structuralschema.NewStructural(internal.OpenAPIV3Schema); err != nil {
		return d, err
	}
	if d.schema, _, err = validation.NewSchemaValidator(internal.OpenAPIV3Schema); err != nil {
		return d, err
	}
	d.rules = cel.NewValidator(d.structural, true, celconfig.PerCallLimit)
	return d, nil
}

// admit returns what speaks against an object, unknown fields among it, as
// fieldValidation=Strict has it.
func (d definition) admit(doc []byte) []string {
	var object map[string]any
	if err := yaml.UnmarshalStrict(doc, &object); err != nil {
		return []string{err.Error()}
	}
	errs := validation.ValidateCustomResource(nil, object, d.schema)
	more, _ := d.rules.Validate(context.Background(), field.NewPath(""), d.structural, object, nil, celconfig.RuntimeCELCostBudget)
	var all []string
	for _, err := range append(errs, more...) {
		all = append(all, err.Error())
	}
	for _, path := range pruning.PruneWithOptions(object, d.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}) {
		all = append(all, "unknown field "+path)
	}
	return all
}
