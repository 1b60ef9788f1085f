package main

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/shardpress/shardpress/internal/operation"
	"github.com/shardpress/shardpress/internal/queue"
)

// The types below name the fields that our manifests use, and no others: a key that
// is misspelt, or that nobody has thought about, is refused.

type meta struct {
	Name   string
	Labels map[string]string
}

type selector struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
}

type podSecurity struct {
	RunAsNonRoot bool  `yaml:"runAsNonRoot"`
	RunAsUser    int64 `yaml:"runAsUser"`
	RunAsGroup   int64 `yaml:"runAsGroup"`
	FSGroup      int64 `yaml:"fsGroup"`
	Seccomp      struct {
		Type string
	} `yaml:"seccompProfile"`
}

type reference struct{ Name string }

type container struct {
	Name, Image string
	Args        []string
	Env         []struct {
		Name      string
		ValueFrom struct {
			FieldRef struct {
				FieldPath string `yaml:"fieldPath"`
			} `yaml:"fieldRef"`
		} `yaml:"valueFrom"`
	}
	EnvFrom []struct {
		ConfigMapRef reference `yaml:"configMapRef"`
		SecretRef    reference `yaml:"secretRef"`
	} `yaml:"envFrom"`
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
	SecurityContext struct {
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Drop []string }
	} `yaml:"securityContext"`
	Ports []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	ReadinessProbe *probe `yaml:"readinessProbe"`
	LivenessProbe  *probe `yaml:"livenessProbe"`
	Resources      struct{ Requests, Limits map[string]string }
}

type probe struct {
	HTTPGet struct {
		Path, Port string
	} `yaml:"httpGet"`
	PeriodSeconds    int `yaml:"periodSeconds"`
	FailureThreshold int `yaml:"failureThreshold"`
}

type podSpec struct {
	ServiceAccountName            string      `yaml:"serviceAccountName"`
	AutomountServiceAccountToken  *bool       `yaml:"automountServiceAccountToken"`
	EnableServiceLinks            *bool       `yaml:"enableServiceLinks"`
	TerminationGracePeriodSeconds int         `yaml:"terminationGracePeriodSeconds"`
	SecurityContext               podSecurity `yaml:"securityContext"`
	TopologySpreadConstraints     []struct {
		MaxSkew           int      `yaml:"maxSkew"`
		TopologyKey       string   `yaml:"topologyKey"`
		WhenUnsatisfiable string   `yaml:"whenUnsatisfiable"`
		LabelSelector     selector `yaml:"labelSelector"`
	} `yaml:"topologySpreadConstraints"`
	InitContainers []container `yaml:"initContainers"`
	Containers     []container
	Volumes        []struct {
		Name   string
		Secret struct {
			SecretName  string `yaml:"secretName"`
			DefaultMode int    `yaml:"defaultMode"`
		}
		ConfigMap reference `yaml:"configMap"`
		EmptyDir  struct {
			SizeLimit string `yaml:"sizeLimit"`
		} `yaml:"emptyDir"`
	}
}

// workload is a Deployment or a StatefulSet.
type workload struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   meta
	Spec       struct {
		ServiceName string `yaml:"serviceName"`
		Replicas    *int
		Selector    selector
		Strategy    struct {
			RollingUpdate struct {
				MaxSurge       string `yaml:"maxSurge"`
				MaxUnavailable string `yaml:"maxUnavailable"`
			} `yaml:"rollingUpdate"`
		}
		Template struct {
			Metadata meta
			Spec     podSpec
		}
		VolumeClaimTemplates []struct {
			Metadata meta
			Spec     struct {
				AccessModes []string `yaml:"accessModes"`
				Resources   struct{ Requests map[string]string }
			}
		} `yaml:"volumeClaimTemplates"`
	}
}

type peers []struct {
	NamespaceSelector *selector `yaml:"namespaceSelector"`
	PodSelector       *selector `yaml:"podSelector"`
	IPBlock           *struct {
		CIDR string `yaml:"cidr"`
	} `yaml:"ipBlock"`
}

type ports []struct {
	Port     int
	Protocol string
}

type networkPolicy struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   meta
	Spec       struct {
		PodSelector selector `yaml:"podSelector"`
		PolicyTypes []string `yaml:"policyTypes"`
		Ingress     []struct {
			From  peers
			Ports ports
		}
		Egress []struct {
			To    peers
			Ports ports
		}
	}
}

type disruptionBudget struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   meta
	Spec       struct {
		MinAvailable int `yaml:"minAvailable"`
		Selector     selector
	}
}

type service struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   meta
	Spec       struct {
		Selector map[string]string
		Ports    []struct {
			Name       string
			Port       int
			TargetPort string `yaml:"targetPort"`
		}
	}
}

type account struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   meta
	Automount  *bool `yaml:"automountServiceAccountToken"`
}

type scaledObject struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   meta
	Spec       struct {
		ScaleTargetRef  reference `yaml:"scaleTargetRef"`
		MinReplicaCount int       `yaml:"minReplicaCount"`
		MaxReplicaCount int       `yaml:"maxReplicaCount"`
		PollingInterval int       `yaml:"pollingInterval"`
		CooldownPeriod  int       `yaml:"cooldownPeriod"`
		Advanced        struct {
			HPA struct {
				Behavior struct {
					ScaleDown struct {
						Stabilization int `yaml:"stabilizationWindowSeconds"`
						Policies      []struct {
							Type          string
							Value         int
							PeriodSeconds int `yaml:"periodSeconds"`
						}
					} `yaml:"scaleDown"`
				}
			} `yaml:"horizontalPodAutoscalerConfig"`
			ScalingModifiers struct {
				Target, Formula  string
				ActivationTarget string `yaml:"activationTarget"`
			} `yaml:"scalingModifiers"`
		}
		Triggers []struct {
			Type, Name string
			// What KEDA's nats-jetstream scaler knows.
			Metadata struct {
				Endpoint     string `yaml:"natsServerMonitoringEndpoint"`
				Account      string
				Stream       string
				Consumer     string
				LagThreshold string `yaml:"lagThreshold"`
			}
		}
	}
}

type kustomization struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Namespace  string
	Labels     []struct{ Pairs map[string]string }
	Resources  []string
	Components []string
	Generators []struct {
		Name        string
		Envs, Files []string
	} `yaml:"configMapGenerator"`
	Images []struct {
		Name    string
		NewName string `yaml:"newName"`
		NewTag  string `yaml:"newTag"`
	}
	Patches []struct {
		Target struct{ Kind, Name string }
		Patch  string
	}
}

// manifests are the documents of deploy/kubernetes.
type manifests struct {
	workloads map[string]*workload
	networks  []*networkPolicy
	budgets   []*disruptionBudget
	scalers   []*scaledObject
	accounts  map[string]*account
	services  map[string]*service
	configs   map[string]bool // config maps that are generated
}

func (m *manifests) add(name string, doc []byte) error {
	var head struct{ Kind string }
	if err := yaml.Unmarshal(doc, &head); err != nil {
		return err
	}
	strict := func(v any) error {
		return yaml.NewDecoder(bytes.NewReader(doc), yaml.Strict()).Decode(v)
	}
	switch head.Kind {
	case "Deployment", "StatefulSet":
		w := &workload{}
		if err := strict(w); err != nil {
			return err
		}
		m.workloads[w.Metadata.Name] = w
		return nil
	case "NetworkPolicy":
		m.networks = append(m.networks, &networkPolicy{})
		return strict(m.networks[len(m.networks)-1])
	case "PodDisruptionBudget":
		m.budgets = append(m.budgets, &disruptionBudget{})
		return strict(m.budgets[len(m.budgets)-1])
	case "ScaledObject":
		m.scalers = append(m.scalers, &scaledObject{})
		return strict(m.scalers[len(m.scalers)-1])
	case "ServiceAccount":
		a := &account{}
		if err := strict(a); err != nil {
			return err
		}
		m.accounts[a.Metadata.Name] = a
		return nil
	case "Service":
		s := &service{}
		if err := strict(s); err != nil {
			return err
		}
		m.services[s.Metadata.Name] = s
		return nil
	case "Namespace":
		return strict(&struct {
			APIVersion string `yaml:"apiVersion"`
			Kind       string
			Metadata   meta
		}{})
	case "Kustomization", "Component":
		k := &kustomization{}
		if err := strict(k); err != nil {
			return err
		}
		for _, g := range k.Generators {
			m.configs[g.Name] = true
		}
		return nil
	}
	return fmt.Errorf("%s: kind %q is not known to this test", name, head.Kind)
}

func readManifests(t *testing.T) *manifests {
	t.Helper()
	m := &manifests{workloads: map[string]*workload{}, accounts: map[string]*account{}, services: map[string]*service{}, configs: map[string]bool{}}
	for _, name := range deployFiles(t, ".yaml") {
		if !strings.HasPrefix(name, "deploy/kubernetes/") {
			continue
		}
		for i, doc := range strings.Split(readRepository(t, name), "\n---\n") {
			if err := m.add(name, []byte(doc)); err != nil {
				t.Fatalf("%s, document %d: %v", name, i+1, err)
			}
		}
	}
	return m
}

// includes says that labels has all of want.
func includes(labels, want map[string]string) bool {
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return len(want) > 0
}

// quantity reads an amount of memory as Kubernetes writes it, and as our flags do.
func quantity(t *testing.T, s string) int64 {
	t.Helper()
	for suffix, unit := range map[string]int64{"GiB": 1 << 30, "MiB": 1 << 20, "Gi": 1 << 30, "Mi": 1 << 20} {
		if digits, ok := strings.CutSuffix(s, suffix); ok {
			if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
				return n * unit
			}
		}
	}
	t.Errorf("amount %q", s)
	return 0
}

// TestComposeKubernetes holds the manifests to what SECURITY.md and docs/deploy.md
// say of them.
func TestComposeKubernetes(t *testing.T) {
	t.Parallel()
	m := readManifests(t)
	guide := readRepository(t, "docs/deploy.md")
	for name, w := range m.workloads {
		pod := w.Spec.Template.Spec
		labels := w.Spec.Template.Metadata.Labels
		if !includes(labels, w.Spec.Selector.MatchLabels) {
			t.Errorf("%s does not select its own pods", name)
		}
		if s := pod.SecurityContext; !s.RunAsNonRoot || s.RunAsUser == 0 || s.Seccomp.Type != "RuntimeDefault" {
			t.Errorf("%s: security context %+v", name, s)
		}
		if a := pod.AutomountServiceAccountToken; a == nil || *a {
			t.Errorf("%s may speak to Kubernetes", name)
		}
		if a := pod.ServiceAccountName; a != "" && m.accounts[a] == nil {
			t.Errorf("%s: no account %s", name, a)
		}
		volumes := map[string]bool{}
		for _, v := range pod.Volumes {
			volumes[v.Name] = true
			if s := v.Secret.SecretName; s != "" && !strings.Contains(guide, "`"+s+"`") {
				t.Errorf("%s: docs/deploy.md does not say how to make secret %s", name, s)
			}
			if c := v.ConfigMap.Name; c != "" && !m.configs[c] {
				t.Errorf("%s: no config map %s", name, c)
			}
		}
		for _, v := range w.Spec.VolumeClaimTemplates {
			volumes[v.Metadata.Name] = true
		}
		for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
			where := name + "/" + c.Name
			if s := c.SecurityContext; s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !s.ReadOnlyRootFilesystem || !slices.Contains(s.Capabilities.Drop, "ALL") {
				t.Errorf("%s: security context %+v", where, s)
			}
			// Ours gets its tag from kustomize.
			if c.Image != "shardpress" && !released.MatchString(c.Image) {
				t.Errorf("%s: image %s is not pinned to a release", where, c.Image)
			}
			for _, v := range c.VolumeMounts {
				if !volumes[v.Name] {
					t.Errorf("%s: no volume %s", where, v.Name)
				}
			}
			for _, e := range c.EnvFrom {
				if r := e.ConfigMapRef.Name; r != "" && !m.configs[r] {
					t.Errorf("%s: no config map %s", where, r)
				}
				if r := e.SecretRef.Name; r != "" && !strings.Contains(guide, "`"+r+"`") {
					t.Errorf("%s: docs/deploy.md does not say how to make secret %s", where, r)
				}
			}
			if c.Resources.Requests["memory"] == "" || c.Resources.Limits["memory"] == "" {
				t.Errorf("%s: no memory is asked for", where)
			}
			for _, p := range []*probe{c.ReadinessProbe, c.LivenessProbe} {
				if p == nil {
					if len(c.Ports) > 0 {
						t.Errorf("%s: no probe", where)
					}
					continue
				}
				port := -1
				for _, q := range c.Ports {
					if q.Name == p.HTTPGet.Port {
						port = q.ContainerPort
					}
				}
				if listen := commandFlag(c.Args, "--metrics-listen"); port < 0 || listen != "" && !strings.HasSuffix(listen, ":"+strconv.Itoa(port)) {
					t.Errorf("%s: probes ask port %s, and nobody listens there", where, p.HTTPGet.Port)
				}
			}
			if grace := commandFlag(c.Args, "--grace"); grace != "" {
				d, err := time.ParseDuration(grace)
				if err != nil || time.Duration(pod.TerminationGracePeriodSeconds)*time.Second < d+10*time.Second {
					t.Errorf("%s is killed before its grace time of %s has gone by", where, grace)
				}
			}
			if memory := commandFlag(c.Args, "--memory"); memory != "" {
				if limit := quantity(t, c.Resources.Limits["memory"]); limit < quantity(t, memory)+512<<20 || c.Resources.Limits["memory"] != c.Resources.Requests["memory"] {
					t.Errorf("%s: limit %s, request %s: want %s and room for the program, twice the same", where, c.Resources.Limits["memory"], c.Resources.Requests["memory"], memory)
				}
			}
			if cache := commandFlag(c.Args, "--cache"); cache != "" {
				for _, v := range pod.Volumes {
					if v.Name == "scratch" && quantity(t, v.EmptyDir.SizeLimit) <= quantity(t, cache) {
						t.Errorf("%s: a cache of %s in a volume of %s", where, cache, v.EmptyDir.SizeLimit)
					}
				}
			}
		}
		guarded := slices.ContainsFunc(m.networks, func(n *networkPolicy) bool {
			return includes(labels, n.Spec.PodSelector.MatchLabels) && slices.Equal(n.Spec.PolicyTypes, []string{"Ingress", "Egress"})
		})
		if !guarded {
			t.Errorf("%s: no network policy", name)
		}
	}
	coordinator := m.workloads["coordinator"]
	if coordinator == nil || m.workloads["worker"] == nil || m.workloads["nats"] == nil {
		t.Fatal("want coordinator, worker and nats")
	}
	if r := coordinator.Spec.Replicas; r == nil || *r < 2 {
		t.Error("want two coordinators")
	}
	if len(m.budgets) != 1 || m.budgets[0].Spec.MinAvailable != 1 || !includes(coordinator.Spec.Template.Metadata.Labels, m.budgets[0].Spec.Selector.MatchLabels) {
		t.Error("want a disruption budget of the coordinators")
	}
	for name, s := range m.services {
		if w := m.workloads[name]; w == nil || !includes(w.Spec.Template.Metadata.Labels, s.Spec.Selector) {
			t.Errorf("service %s finds nobody", name)
		}
	}
	if conf := readRepository(t, "deploy/kubernetes/components/nats/nats.conf"); !syncAlways.MatchString(conf) {
		t.Error("nats.conf: sync_interval is not always")
	}
}

// TestComposeScaler wants a trigger for each cell of the queue that the scaled workers
// serve, and all of them in the formula.
func TestComposeScaler(t *testing.T) {
	t.Parallel()
	m := readManifests(t)
	if len(m.scalers) != 1 {
		t.Fatalf("%d scalers", len(m.scalers))
	}
	s := m.scalers[0].Spec
	w := m.workloads[s.ScaleTargetRef.Name]
	if w == nil {
		t.Fatalf("no workload %s", s.ScaleTargetRef.Name)
	}
	args := w.Spec.Template.Spec.Containers[0].Args
	var want, got, names []string
	for _, cell := range queue.Ladder(operation.ClassF32, quantity(t, commandFlag(args, "--memory"))) {
		want = append(want, cell.String())
	}
	for _, trigger := range s.Triggers {
		d := trigger.Metadata
		got = append(got, d.Consumer)
		names = append(names, trigger.Name)
		if trigger.Type != "nats-jetstream" || d.Stream != "TASKS" || !strings.HasSuffix(d.Endpoint, ":8222") || d.LagThreshold != s.Advanced.ScalingModifiers.Target {
			t.Errorf("trigger %s: %+v", trigger.Name, d)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("triggers for %q\nwant %q", got, want)
	}
	if sum := strings.Fields(strings.ReplaceAll(s.Advanced.ScalingModifiers.Formula, "+", " ")); !slices.Equal(sum, names) {
		t.Errorf("the formula adds %q, the triggers are %q", sum, names)
	}
	if s.Advanced.ScalingModifiers.Target != commandFlag(args, "--slots") {
		t.Errorf("%s tasks for each worker, which has --slots=%s", s.Advanced.ScalingModifiers.Target, commandFlag(args, "--slots"))
	}
	if s.MinReplicaCount != 0 || s.MaxReplicaCount < 2 {
		t.Errorf("from %d to %d workers", s.MinReplicaCount, s.MaxReplicaCount)
	}
}
