package main

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// template returns the pod template of what has one.
func template(o runtime.Object) *corev1.PodTemplateSpec {
	switch o := o.(type) {
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *appsv1.DaemonSet:
		return &o.Spec.Template
	}
	return nil
}

// podSecurity returns the strictest Pod Security level that admits a pod, and what
// the next one objects to.
func podSecurity(pods *corev1.PodTemplateSpec) (level, beyond string) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return "", err.Error()
	}
	for _, level := range []api.Level{api.LevelRestricted, api.LevelBaseline} {
		r := policy.AggregateCheckResults(evaluator.EvaluatePod(api.LevelVersion{Level: level, Version: api.LatestVersion()}, &pods.ObjectMeta, &pods.Spec))
		if r.Allowed {
			return string(level), beyond
		}
		beyond = r.ForbiddenDetail()
	}
	return string(api.LevelPrivileged), beyond
}
