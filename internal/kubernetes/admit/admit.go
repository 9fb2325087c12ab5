package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	// What legacyscheme knows.
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
)

// A verdict is what the API server says of an object.
type verdict struct {
	Object   string   // KIND/NAME
	Errors   []string `json:",omitempty"` // none: it is created
	Warnings []string `json:",omitempty"`
	// PodSecurity is the strictest level that admits the object's pods, empty for
	// what has none.
	PodSecurity string `json:",omitempty"`
	// Beyond is what the next stricter level objects to.
	Beyond string `json:",omitempty"`
}

// split takes a stream of YAML documents apart.
func split(text []byte) ([][]byte, error) {
	var docs [][]byte
	r := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		doc, err := r.Read()
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(doc)) > 0 {
			docs = append(docs, doc)
		}
	}
}

func admitAll(docs [][]byte, crds string) ([]verdict, error) {
	custom, err := readDefinitions(crds)
	if err != nil {
		return nil, err
	}
	var all []verdict
	for _, doc := range docs {
		var head metav1.PartialObjectMetadata
		if err := yaml.Unmarshal(doc, &head); err != nil {
			return nil, err
		}
		v := verdict{Object: head.Kind + "/" + head.Name}
		if d, ok := custom[head.GroupVersionKind()]; ok {
			v.Errors = d.admit(doc)
		} else {
			admit(doc, &v)
		}
		all = append(all, v)
	}
	return all, nil
}

// admit decodes an object of a built-in kind as an API server does with
// fieldValidation=Strict, and validates it as one does before it is created.
func admit(doc []byte, v *verdict) {
	external, err := decode(doc)
	if err != nil {
		v.Errors = []string{err.Error()}
		return
	}
	group := external.GetObjectKind().GroupVersionKind().Group
	internal, err := legacyscheme.Scheme.ConvertToVersion(external, schema.GroupVersion{Group: group, Version: runtime.APIVersionInternal})
	if err != nil {
		v.Errors = []string{err.Error()}
		return
	}
	errs, warnings := validate(internal)
	for _, err := range errs {
		v.Errors = append(v.Errors, err.Error())
	}
	v.Warnings = warnings
	if pods := template(external); pods != nil {
		v.PodSecurity, v.Beyond = podSecurity(pods)
	}
}

// decode reads an object strictly and fills in its defaults.
func decode(doc []byte) (runtime.Object, error) {
	codecs := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict)
	o, _, err := codecs.UniversalDeserializer().Decode(doc, nil, nil)
	if err != nil {
		return nil, err
	}
	legacyscheme.Scheme.Default(o)
	return o, nil
}
