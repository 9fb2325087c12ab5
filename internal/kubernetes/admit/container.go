package main

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/pkg/securitycontext"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// A container is what a node makes of a pod's container.
type container struct {
	// Args are what follows the image's entry point.
	Args []string
	// Spec has what the security context decides, and nothing else: user,
	// capabilities, no_new_privs, seccomp filter, read-only root.
	Spec specs.Spec
	// Files are those of the volumes that are ConfigMaps, by path.
	Files map[string]string
}

// start returns the first container of the pod of the object KIND/NAME that has this
// ordinal.
func start(docs [][]byte, name string, ordinal int) (*container, error) {
	var found *corev1.Pod
	configMaps := make(map[string]map[string]string)
	for _, doc := range docs {
		o, err := decode(doc)
		if err != nil {
			continue // a custom resource, or what the verdicts say
		}
		switch o := o.(type) {
		case *corev1.ConfigMap:
			configMaps[o.Name] = o.Data
		case *appsv1.StatefulSet:
			if "StatefulSet/"+o.Name == name {
				found = &corev1.Pod{ObjectMeta: o.Spec.Template.ObjectMeta, Spec: o.Spec.Template.Spec}
				// As the StatefulSet's controller names and labels it.
				found.Name = o.Name + "-" + strconv.Itoa(ordinal)
				found.Labels = maps.Clone(found.Labels)
				found.Labels[appsv1.PodIndexLabel] = strconv.Itoa(ordinal)
			}
		case *appsv1.DaemonSet:
			if "DaemonSet/"+o.Name == name {
				found = &corev1.Pod{ObjectMeta: o.Spec.Template.ObjectMeta, Spec: o.Spec.Template.Spec}
			}
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no %s", name)
	}
	return ofPod(found, configMaps)
}

func ofPod(p *corev1.Pod, configMaps map[string]map[string]string) (*container, error) {
	c := &p.Spec.Containers[0]
	env := make(map[string]string)
	for _, e := range c.Env {
		env[e.Name] = e.Value
		if e.ValueFrom == nil {
			continue
		}
		if e.ValueFrom.FieldRef == nil {
			return nil, fmt.Errorf("%s: only fieldRef is known here", e.Name)
		}
		value, err := fieldpath.ExtractFieldPathAsString(p, e.ValueFrom.FieldRef.FieldPath)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name, err)
		}
		env[e.Name] = value
	}
	out := &container{Spec: secure(p, c)}
	for _, arg := range c.Args {
		out.Args = append(out.Args, expansion.Expand(arg, expansion.MappingFuncFor(env)))
	}
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out.Spec.Process.Env = append(out.Spec.Process.Env, k+"="+env[k])
	}
	var err error
	out.Files, err = mounted(p, c, configMaps)
	return out, err
}

// secure is what the kubelet asks of the runtime by a container's security context,
// as containerd's CRI plugin puts it into the specification for runc.
func secure(p *corev1.Pod, c *corev1.Container) specs.Spec {
	sc := securitycontext.DetermineEffectiveSecurityContext(p, c)
	s := specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs", Readonly: sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem},
		Process: &specs.Process{
			Cwd:             "/",
			NoNewPrivileges: securitycontext.AddNoNewPrivileges(sc),
			Capabilities:    capabilities(sc.Capabilities),
		},
		Linux: new(specs.Linux),
	}
	if sc.RunAsUser != nil {
		s.Process.User.UID = uint32(*sc.RunAsUser)
	}
	if sc.RunAsGroup != nil {
		s.Process.User.GID = uint32(*sc.RunAsGroup)
	}
	profile := sc.SeccompProfile
	if profile == nil && p.Spec.SecurityContext != nil {
		profile = p.Spec.SecurityContext.SeccompProfile
	}
	if profile != nil && profile.Type == corev1.SeccompProfileTypeRuntimeDefault {
		s.Linux.Seccomp = seccomp.DefaultProfile(&s)
	}
	return s
}

// defaultCapabilities are what containerd gives a container that asks for nothing
// (its pkg/oci, defaultUnixCaps).
var defaultCapabilities = []corev1.Capability{
	"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID",
	"SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
}

// capabilities does as containerd's CRI plugin: ALL first, then what is added, then
// what is dropped, in the bounding, effective and permitted sets, whoever the user
// is; none is inheritable or ambient.
func capabilities(c *corev1.Capabilities) *specs.LinuxCapabilities {
	have := slices.Clone(defaultCapabilities)
	if c != nil {
		if slices.Contains(c.Drop, "ALL") {
			have = nil
		}
		have = append(have, c.Add...)
		have = slices.DeleteFunc(have, func(x corev1.Capability) bool { return slices.Contains(c.Drop, x) })
	}
	var names []string
	for _, x := range have {
		names = append(names, "CAP_"+string(x))
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names}
}

// mounted returns the files of the ConfigMaps that a container mounts.
func mounted(p *corev1.Pod, c *corev1.Container, configMaps map[string]map[string]string) (map[string]string, error) {
	files := make(map[string]string)
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		if i < 0 {
			return nil, fmt.Errorf("no volume %s", m.Name)
		}
		v := p.Spec.Volumes[i]
		var names []string
		switch {
		case v.ConfigMap != nil:
			names = []string{v.ConfigMap.Name}
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				if s.ConfigMap == nil {
					return nil, errors.New("only ConfigMaps are known here")
				}
				names = append(names, s.ConfigMap.Name)
			}
		}
		for _, name := range names {
			data, ok := configMaps[name]
			if !ok {
				return nil, fmt.Errorf("no ConfigMap %s", name)
			}
			for file, text := range data {
				files[path.Join(m.MountPath, file)] = text
			}
		}
	}
	return files, nil
}
