// Command admit says of Kubernetes manifests what an API server would say when they
// are created, and what a node would make of their pods. It is the API server's own
// code, without the server: decoding that refuses unknown fields, defaults,
// validation, Pod Security admission, and for custom resources the checks of
// apiextensions-apiserver with the operator's own definitions.
//
// It is a module of its own, so that none of this becomes a dependency of probed.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "admit:", err)
		os.Exit(1)
	}
}

// run reads manifests and writes an array of verdicts, or, with -container, what a
// node would start.
func run(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("admit", flag.ContinueOnError)
	crds := flags.String("crds", "", "folder of CustomResourceDefinitions")
	container := flags.String("container", "", "KIND/NAME: print its first container as containerd would start it")
	ordinal := flags.Int("ordinal", 0, "of the pod, where KIND is StatefulSet")
	if err := flags.Parse(args); err != nil {
		return err
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	docs, err := split(text)
	if err != nil {
		return err
	}
	var answer any
	if *container != "" {
		answer, err = start(docs, *container, *ordinal)
	} else {
		answer, err = admitAll(docs, *crds)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(answer)
}
