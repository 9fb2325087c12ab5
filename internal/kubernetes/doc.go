// Package kubernetes holds the tests of deploy/kubernetes: what kustomize makes of it
// is given to admit, which answers as an API server would, and its pods are run by
// runc as containerd would run them.
package kubernetes
