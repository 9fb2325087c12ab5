package main

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
)

// validate does what the registries' strategies do before they create an object. It
// does without the strategies themselves, which would compile for two minutes.
func validate(o runtime.Object) (errs field.ErrorList, warnings []string) {
	switch o := o.(type) {
	case *apps.StatefulSet:
		inNamespace(&o.ObjectMeta)
		return appsvalidation.ValidateStatefulSet(o, pod.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)), warningsOf(&o.Spec.Template)
	case *apps.DaemonSet:
		inNamespace(&o.ObjectMeta)
		return appsvalidation.ValidateDaemonSet(o, pod.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)), warningsOf(&o.Spec.Template)
	case *core.ConfigMap:
		inNamespace(&o.ObjectMeta)
		return corevalidation.ValidateConfigMap(o), nil
	case *core.Namespace:
		return corevalidation.ValidateNamespace(o), nil
	case *core.Service:
		inNamespace(&o.ObjectMeta)
		if o.Spec.ClusterIP != "" && o.Spec.ClusterIPs == nil { // the registry keeps both alike
			o.Spec.ClusterIPs = []string{o.Spec.ClusterIP}
		}
		return corevalidation.ValidateServiceCreate(o), nil
	case *networking.NetworkPolicy:
		inNamespace(&o.ObjectMeta)
		return networkingvalidation.ValidateNetworkPolicy(o, networkingvalidation.NetworkPolicyValidationOptions{}), nil
	case *policy.PodDisruptionBudget:
		inNamespace(&o.ObjectMeta)
		return policyvalidation.ValidatePodDisruptionBudget(o, policyvalidation.PodDisruptionBudgetValidationOptions{}), nil
	}
	return field.ErrorList{field.InternalError(nil, fmt.Errorf("admit knows no %T", o))}, nil
}

// inNamespace puts what names no namespace into the one of kubectl.
func inNamespace(m *metav1.ObjectMeta) {
	if m.Namespace == "" {
		m.Namespace = metav1.NamespaceDefault
	}
}

func warningsOf(template *core.PodTemplateSpec) []string {
	return pod.GetWarningsForPodTemplate(context.Background(), field.NewPath("spec", "template"), template, nil)
}
