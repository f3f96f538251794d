package main

import (
	"flag"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/NVIDIA/KAI-scheduler/pkg/admission/plugins"
	"github.com/NVIDIA/KAI-scheduler/pkg/admission/webhook/v1alpha2/gpusharing"
	"github.com/NVIDIA/KAI-scheduler/pkg/admission/webhook/v1alpha2/podhooks"
	"github.com/NVIDIA/KAI-scheduler/pkg/apis/scheduling/v2"
	"github.com/NVIDIA/KAI-scheduler/pkg/apis/scheduling/v2alpha2"
	"github.com/NVIDIA/KAI-scheduler/pkg/common/constants"
)

// runWebhooks serves what KAI's admission, podgroupcontroller and queuecontroller would serve, each
// on every address at the same port: here together, on the loopback address, at a port of choice.
func runWebhooks() error {
	port := flag.Int("port", 0, "where to listen on the loopback address")
	certificates := flag.String("cert-dir", "", "the folder with tls.crt and tls.key")
	flag.Parse()
	logToStderr()

	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, v2.AddToScheme, v2alpha2.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	server := webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: *port, CertDir: *certificates})
	manager, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ctrl.Options{
		Scheme:        scheme,
		Metrics:       metricsserver.Options{BindAddress: "0"},
		WebhookServer: server,
	})
	if err != nil {
		return err
	}
	if err := (&v2.Queue{}).SetupWebhookWithManager(manager); err != nil {
		return err
	}
	if err := (&v2alpha2.PodGroup{}).SetupWebhookWithManager(manager); err != nil {
		return err
	}
	client := manager.GetClient()
	pods := plugins.New()
	pods.RegisterPlugin(gpusharing.New(client, true))
	err = ctrl.NewWebhookManagedBy(manager).
		For(&corev1.Pod{}).
		WithDefaulter(podhooks.NewPodMutator(client, pods, constants.DefaultSchedulerName)).
		WithValidator(podhooks.NewPodValidator(client, pods, constants.DefaultSchedulerName)).
		Complete()
	if err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}
